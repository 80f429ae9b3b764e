"""The sample society: what it is made of, the same each time."""

import csv
import io
import random
from collections import Counter

from faker import Faker

from cli.sample import AGENTS, COLUMNS, members_csv


def members(seed: int = 7) -> list[dict[str, str]]:
    faker = Faker("ne_NP")
    faker.seed_instance(seed)
    return list(csv.DictReader(io.StringIO(members_csv(faker, random.Random(seed)).decode())))


def test_seven_thousand_in_three_tiers_with_one_death() -> None:
    rows = members()
    assert len(rows) == 7_000 and tuple(rows[0]) == COLUMNS
    kinds = Counter((row["tier"], row["status"]) for row in rows)
    assert (kinds["A", "Active"], kinds["A", "Deceased"]) == (5_000, 1)
    assert {tier for tier, _ in kinds} == {"A", "B", "C"}
    assert sum(count for (_, status), count in kinds.items() if status == "Deceased") == 1


def test_names_are_nepali_and_everybody_has_an_agent_and_a_phone_of_their_own() -> None:
    rows = members()
    assert all("\u0900" <= row["full_name"][0] <= "\u097f" for row in rows)
    assert {row["agent"] for row in rows} == {f"AG{number:02d}" for number in range(1, AGENTS + 1)}
    assert len({row["phone"] for row in rows}) == len(rows)


def test_it_is_the_same_each_time() -> None:
    assert members() == members()
