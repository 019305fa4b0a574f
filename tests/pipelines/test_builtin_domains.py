"""Every domain that comes with the project keeps the contract that plug-ins are held to."""

from __future__ import annotations

import pytest

from diptych.discovery import find_domains, missing_packages
from diptych.testing import check_domain

BUILT_IN = [each for each in find_domains() if each.distribution == "diptych"]


def test_the_built_in_domains_are_found():
    assert {each.name for each in BUILT_IN} >= {"biosignals"}
    assert [each.error for each in BUILT_IN if each.error] == []


@pytest.mark.parametrize("found", BUILT_IN, ids=lambda each: each.name)
def test_a_built_in_domain_keeps_the_contract(found, here, monkeypatch):
    if missing_packages(found):
        pytest.skip(f"the extra {found.domain.extra!r} is not installed")
    monkeypatch.setenv("DIPTYCH_CACHE", str(here / "cache"))
    check_domain(found.domain)
