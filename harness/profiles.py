"""The two profiles. Sizes are in every key; defaults of people, data and batch are in none, so they
stand apart."""

from fsrbench.core import Profile
from fsrbench.errors import unknown
from fsrbench.faces.geometry import FFHQ, Frame

PROFILES = {
    "mini": Profile("mini", 64, Frame(0.75, 0.03), "orl", people=12, batch=20),
    "paper": Profile("paper", 256, FFHQ, "celebref-hq", people=None, batch=8),
}


def get_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        FsrError: there is none.
    """
    if name not in PROFILES:
        raise unknown("profile", name, list(PROFILES))
    return PROFILES[name]
