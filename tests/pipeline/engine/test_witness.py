"""The witness: an image is guilty after two deaths alone; a lost node blames nobody."""

from __future__ import annotations

from pathlib import Path

from cleanplate.pipeline.engine.poison import SILENT, Case, Witness


def attempt(witness: Witness, images: list[str], poison: set[str], size: int = 4) -> bool:
    """One attempt at a unit, as a worker makes it; False when it died."""
    case = witness.begin("u")
    healthy = [i for i in images if i not in case.guilty]
    if not case.careful:
        if poison & set(healthy):
            return False
        witness.end("u")
        return True
    for at in range(0, len(images), size):
        batch = images[at : at + size]
        together = [i for i in batch if i not in case.alone]
        for chosen in [together, *([i] for i in batch if i in case.alone)]:
            if chosen:
                witness.at("u", chosen)
                if poison & set(chosen) & set(healthy):
                    return False
    witness.at("u", [])
    witness.end("u")
    return True


def deaths(poison: set[str]) -> tuple[int, Case]:
    witness = Witness()
    images = [f"i{n}" for n in range(12)]
    count = 0
    while True:
        before = witness.begin("other") if count > 100 else None
        assert before is None, "never ends"
        if attempt(witness, images, poison):
            return count, witness.begin("u")
        count += 1


def test_a_poisoned_image_costs_four_processes_and_its_neighbours_nothing() -> None:
    assert deaths({"i5"})[0] == 4


def test_each_further_one_costs_two_or_three_more() -> None:
    assert deaths({"i5", "i6"})[0] == 6, "in the same batch"
    assert deaths({"i1", "i11"})[0] == 7, "in another batch"


def test_a_finished_unit_is_forgotten() -> None:
    assert deaths({"i5"})[1] == Case()


def test_a_node_that_goes_down_once_blames_nobody() -> None:
    witness = Witness()
    witness.begin("u")
    assert witness.begin("u") == Case(careful=True)
    witness.at("u", ["a", "b"])
    assert witness.begin("u") == Case(careful=True, alone=frozenset("ab"))
    witness.at("u", ["a"])
    assert witness.begin("u").guilty == frozenset()
    witness.at("u", ["a"])
    assert witness.begin("u").guilty == {"a"}


def test_a_death_after_the_last_image_blames_nobody() -> None:
    witness = Witness()
    witness.begin("u")
    witness.begin("u")
    witness.at("u", ["a"])
    witness.at("u", [])
    case = witness.begin("u")
    assert not case.alone
    assert not case.guilty


def test_workers_that_die_before_any_image_are_given_up() -> None:
    witness = Witness()
    cases = [witness.begin("u") for _ in range(SILENT + 1)]
    assert not any(case.hopeless for case in cases[:-1])
    assert cases[-1].hopeless


def test_a_witness_that_is_killed_too_knows_it_all_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    images = [f"i{n}" for n in range(12)]
    ended = [attempt(Witness(str(notes)), images, {"i5"}) for _ in range(5)]  # A new process each time.
    assert ended == [False] * 4 + [True]
    assert deaths({"i5"})[0] == 4
    assert Witness(str(notes)).begin("u") == Case()  # What has ended is past.


def test_a_note_that_was_being_written_is_no_note(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    Witness(str(notes)).begin("u")
    with notes.open("a") as file:
        file.write('["end", "')
    again = Witness(str(notes))
    assert again.begin("u") == Case(careful=True)
    assert Witness(str(notes)).begin("u") == Case(careful=True)


def test_a_wave_that_is_over_leaves_no_notes(tmp_path: Path) -> None:
    witness = Witness(str(tmp_path / "notes"))
    witness.begin("u")
    witness.over()
    assert list(tmp_path.iterdir()) == []
