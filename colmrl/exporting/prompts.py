"""A checkpoint's prompts as what stands before and after a record's text."""

from colmrl.errors import InputError
from colmrl.models.description import Description


def prompts_around(description: Description) -> dict[str, tuple[str, str]]:
    """What the prompts of queries and documents say before and after a record's text."""
    around = {}
    for role in ("query", "document"):
        prompt = getattr(description.model, f"{role}_prompt")
        if prompt.count("{text}") != 1:
            raise InputError(
                f"model.{role}_prompt: {prompt!r}: has {{text}} not once: such a prompt cannot be exported"
            )
        before, _, after = prompt.partition("{text}")
        around[role] = before, after
    return around


def prompts_before(description: Description, tool: str) -> dict[str, str]:
    """The same for a tool that can only put something before a text."""
    around = prompts_around(description)
    for role, (_, after) in around.items():
        if after:
            raise InputError(
                f"model.{role}_prompt: {after!r} follows the text: {tool} can only put something before it: "
                "use --to transformers, or train with {text} last"
            )
    return {role: before for role, (before, _) in around.items()}
