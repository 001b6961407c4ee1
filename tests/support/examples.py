"""How many examples a property is tried with."""

from hypothesis import settings

# In the profile with fewest, and of a property that does not ask for a number of its own.
USUAL = 40


def examples(count):
    """Return the settings of a property that asks for so many; a profile with more gives it more, too."""
    return settings(max_examples=count * settings().max_examples // USUAL)
