import pytest
import yaml

from colmrl.config import Config
from colmrl.configure import RECIPES, changed_keys, load_config, save_config
from colmrl.errors import InputError


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_its_header_says_command_and_hardware(recipe):
    config = load_config(recipe)
    assert config.model.backbone
    header = "".join(line for line in recipe.read_text().splitlines() if line.startswith("#"))
    assert "colmrl loop --config" in header or "train.py --config" in header
    assert "Hardware:" in header


def test_a_recipe_is_found_by_its_bare_name():
    assert load_config("demo") == load_config(RECIPES / "demo.yaml")


def test_exponents_without_a_dot_are_numbers(tmp_path):
    config = load_config(write(tmp_path / "c.yaml", "train:\n  learning_rate: 1e-4\n"))
    assert config.train.learning_rate == 1e-4
    assert load_config(None, ["train.learning_rate=3e-5"]).train.learning_rate == 3e-5


def test_an_override_wins_over_the_file(tmp_path):
    path = write(tmp_path / "c.yaml", "seed: 1\nsingle: {dims: [64]}\n")
    config = load_config(path, ["seed=2", "single.dims=[32,16]"])
    assert (config.seed, config.single.dims) == (2, (32, 16))


def test_a_typo_names_file_line_and_the_nearest_key(tmp_path):
    path = write(tmp_path / "c.yaml", "seed: 1\ntrain:\n  epochs: 2\n  lerning_rate: 1\n")
    with pytest.raises(InputError, match=r"c\.yaml:4: train\.lerning_rate.*did you mean train\.learning_rate\?"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("learning_rate=1", "did you mean train.learning_rate"),
        ("trian.epochs=1", "did you mean train.epochs"),
        ("train.epochs=many", "train.epochs.*valid number.*'many'"),
        ("train.batch_size=0", "train.batch_size.*greater than 0"),
        ("model.tuning=half", "'full', 'lora' or 'frozen'"),
        ("train.epochs", "section.key=value"),
        ("seed.x=1", "seed"),
        ("single.projection=64", "single.dims.*128.*projection=64"),
        ("data.path=3", "data.path.*string"),
        ("train.nope.x=3", "train.nope: unknown key: known keys: train.init_from|train.nope.*did you mean"),
        ("seed=-1", "seed.*greater than or equal to 0"),
        ("eval.k=3", "eval.k.*greater than or equal to 10"),
        ("model.dtype=bf16", "model.dtype.*fp32 with train.precision=bf16"),
    ],
)
def test_a_wrong_override_is_said_with_its_key(override, says):
    with pytest.raises(InputError, match=says):
        load_config(None, [override])


def test_a_model_needs_a_head():
    with pytest.raises(InputError, match=r"single\.dims, multi\.dims"):
        load_config(None, ["single.dims=[]", "multi.dims=[]"])


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "\xff\xfe"])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"c\.yaml"):
        load_config(path)


def test_only_what_differs_is_named_and_a_moved_folder_is_not_a_change(tmp_path):
    config = load_config("demo", ["output=here"])
    save_config(config, tmp_path / "c.yaml")
    assert changed_keys(tmp_path / "c.yaml", load_config("demo", ["output=there/"])) == []
    other = load_config("demo", ["output=here/", "train.epochs=7", "mine.k=3"])
    assert changed_keys(tmp_path / "c.yaml", other) == ["train.epochs", "mine.k"]


def test_output_is_filled_in(tmp_path):
    path = write(tmp_path / "c.yaml", 'output: here\nmodel: {backbone: "${output}/model"}\n')
    assert load_config(path).model.backbone == "here/model"
    assert load_config(path, ["output=there"]).model.backbone == "there/model"


def test_what_is_saved_loads_equal(tmp_path):
    config = load_config("demo")
    save_config(config, tmp_path / "c.yaml")
    assert load_config(tmp_path / "c.yaml") == config
    assert set(yaml.safe_load((tmp_path / "c.yaml").read_text())) == set(Config.__dataclass_fields__)
