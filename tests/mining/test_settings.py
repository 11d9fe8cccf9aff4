import pytest

from colmrl.config import FilterConfig, TeacherConfig
from colmrl.configure import load_config, save_config
from colmrl.errors import InputError


def test_steps_are_read_in_their_order_from_a_file_or_an_override(tmp_path):
    written = (
        "mine:\n  filters:\n    - duplicates: true\n    - {teacher: {store: s, max_score: 0.3}}\n    - range_min: 0\n"
    )
    (tmp_path / "c.yaml").write_text(written)
    steps = (
        FilterConfig(duplicates=True),
        FilterConfig(teacher=TeacherConfig(store="s", max_score=0.3)),
        FilterConfig(range_min=0),
    )
    assert load_config(tmp_path / "c.yaml").mine.filters == steps
    override = "mine.filters=[{duplicates: true}, {teacher: {store: s, max_score: .3}}, {range_min: 0}]"
    config = load_config(None, [override])
    assert config.mine.filters == steps
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert load_config(None, ["mine.filters=[]"]).mine.filters == ()
    assert load_config(None).mine.filters == (FilterConfig(duplicates=True), FilterConfig(relative_margin=0.05))


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (
            "[{duplicates: true}, {relative_margn: 0.1}]",
            "step 2: relative_margn: unknown key: did you mean relative_margin",
        ),
        ("[{teacher: {stor: x}}]", "step 1: teacher: stor: unknown key: did you mean store"),
        ("[{wibble: 3}]", "step 1: wibble: unknown key: known keys: duplicates, range_min, "),
        ("[{range_max: 5}, {relative_margin: 2}]", "step 2: relative_margin: .*less than 1: got 2"),
        ("[{duplicates: true, max_score: 3}]", "step 1: duplicates, max_score given: give each step exactly one of"),
        ("[{}]", "step 1: nothing given"),
        ("[relative_margin]", "step 1: .*got 'relative_margin'"),
        ("[{teacher: {max_score: 0.5}}]", "step 1: teacher: give it one of store, reranker, scores"),
        ("[{teacher: {scores: x, view: single@64}}]", "step 1: teacher: view=single@64: is of a store"),
    ],
)
def test_a_wrong_step_is_said_with_its_number(filters, says):
    with pytest.raises(InputError, match=f"mine.filters: {says}"):
        load_config(None, [f"mine.filters={filters}"])


def test_the_line_of_the_file_and_the_old_setting_are_named(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 1\nmine:\n  k: 3\n  filters:\n    - relativ_margin: 1\n")
    with pytest.raises(InputError, match=r"c\.yaml:4: mine\.filters: step 1: relativ_margin: .*relative_margin"):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(
        InputError, match=r"mine\.relative_margin: .*did you mean mine\.filters=\[\{relative_margin: …\}\]"
    ):
        load_config(None, ["mine.relative_margin=0.05"])
