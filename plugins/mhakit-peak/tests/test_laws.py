import mhakit
import pytest
from mhakit.testing import LAWS, check_combination

from mhakit_peak import Peak


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_law_of(law):
    check_combination(Peak, laws=[law])


def test_it_is_found_by_name():
    (record,) = [record for record in mhakit.combinations() if record.name == "peak"]
    assert (record.cls, record.distribution) == (Peak, "mhakit-peak")
