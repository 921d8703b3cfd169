"""What ends workers: an image is guilty after two deaths alone; a lost node or a slow machine blames nobody."""

from __future__ import annotations

from pathlib import Path

from cleanplate.pipeline.engine.poison import LONGER, SILENT, Attempts, Death, Verdict


def attempt(attempts: Attempts, images: list[str], poison: set[str], size: int = 4) -> bool:
    """One attempt at a unit, as a worker makes it; False when it died."""
    verdict = attempts.begin("u")
    healthy = [i for i in images if i not in verdict.guilty]
    if not verdict.careful:
        if poison & set(healthy):
            return False
        attempts.end("u")
        return True
    for at in range(0, len(images), size):
        batch = images[at : at + size]
        together = [i for i in batch if i not in verdict.alone]
        for chosen in [together, *([i] for i in batch if i in verdict.alone)]:
            if chosen:
                attempts.announce("u", chosen)
                if poison & set(chosen) & set(healthy):
                    return False
    attempts.announce("u", [])
    attempts.end("u")
    return True


def deaths(poison: set[str]) -> tuple[int, Verdict]:
    attempts = Attempts()
    images = [f"i{n}" for n in range(12)]
    count = 0
    while True:
        before = attempts.begin("other") if count > 100 else None
        assert before is None, "never ends"
        if attempt(attempts, images, poison):
            return count, attempts.begin("u")
        count += 1


def test_a_poisoned_image_costs_four_processes_and_its_neighbours_nothing() -> None:
    assert deaths({"i5"})[0] == 4


def test_each_further_one_costs_two_or_three_more() -> None:
    assert deaths({"i5", "i6"})[0] == 6, "in the same batch"
    assert deaths({"i1", "i11"})[0] == 7, "in another batch"


def test_a_finished_unit_is_forgotten() -> None:
    assert deaths({"i5"})[1] == Verdict()


def test_a_node_that_goes_down_once_blames_nobody() -> None:
    attempts = Attempts()
    attempts.begin("u")
    assert attempts.begin("u") == Verdict(careful=True)
    attempts.announce("u", ["a", "b"])
    assert attempts.begin("u") == Verdict(careful=True, alone=frozenset("ab"))
    attempts.announce("u", ["a"])
    assert attempts.begin("u").guilty == frozenset()
    attempts.announce("u", ["a"])
    assert attempts.begin("u").guilty == {"a"}


def test_a_death_after_the_last_image_blames_nobody() -> None:
    attempts = Attempts()
    attempts.begin("u")
    attempts.begin("u")
    attempts.announce("u", ["a"])
    attempts.announce("u", [])
    verdict = attempts.begin("u")
    assert not verdict.alone
    assert not verdict.guilty


def test_workers_that_die_before_any_image_are_given_up() -> None:
    attempts = Attempts()
    verdicts = [attempts.begin("u") for _ in range(SILENT + 1)]
    assert not any(verdict.hopeless for verdict in verdicts[:-1])
    assert verdicts[-1].hopeless


def test_a_memory_that_is_killed_too_knows_it_all_again(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    images = [f"i{n}" for n in range(12)]
    ended = [attempt(Attempts(str(journal)), images, {"i5"}) for _ in range(5)]  # A new process each time.
    assert ended == [False] * 4 + [True]
    assert deaths({"i5"})[0] == 4
    assert Attempts(str(journal)).begin("u") == Verdict()  # What has ended is past.


def test_a_line_that_was_being_written_is_ignored(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    Attempts(str(journal)).begin("u")
    with journal.open("a") as file:
        file.write('["end", "')
    again = Attempts(str(journal))
    assert again.begin("u") == Verdict(careful=True)
    assert Attempts(str(journal)).begin("u") == Verdict(careful=True)


def test_a_wave_that_is_over_leaves_no_journal(tmp_path: Path) -> None:
    attempts = Attempts(str(tmp_path / "journal"))
    attempts.begin("u")
    attempts.close()
    assert list(tmp_path.iterdir()) == []


def test_an_image_is_guilty_of_slowness_only_after_a_try_alone_with_the_longer_limit() -> None:
    """A slow machine: every batch takes longer than `patience`, an image alone less than `LONGER` times it."""
    attempts, limits = Attempts(), []
    for _ in range(2):  # The unit, then its first batch.
        verdict = attempts.begin("u")
        if verdict.careful:
            attempts.announce("u", ["a", "b"])
        attempts.give_up("u", 900)
    verdict = attempts.begin("u")
    assert verdict.alone == {"a", "b"}
    assert not verdict.guilty
    limits.append(LONGER)
    attempts.announce("u", ["a"])
    attempts.announce("u", ["b"])
    attempts.give_up("u", 900 * LONGER)  # b hangs all the same.
    verdict = attempts.begin("u")
    assert verdict.guilty == verdict.hung == {"b"}


def test_a_batch_of_one_image_that_is_slow_is_not_its_try_alone() -> None:
    attempts = Attempts()
    attempts.begin("u")
    for _ in range(1):
        attempts.give_up("u", 900)
        attempts.begin("u")
        attempts.announce("u", ["a"])
    attempts.give_up("u", 900)
    assert attempts.begin("u") == Verdict(careful=True, alone=frozenset("a"))
    attempts.announce("u", ["a"])
    assert attempts.begin("u").guilty == frozenset(), "one death of another cause may be a node's"
    attempts.announce("u", ["a"])
    attempts.give_up("u", 3600)
    assert attempts.begin("u").hung == {"a"}


def test_the_driver_hears_of_each_death_once_and_of_every_sign() -> None:
    attempts = Attempts()
    attempts.begin("u")
    first = attempts.news()
    assert first.signs == 1
    assert first.deaths == ()
    attempts.progress("u", {"detect": 4})
    attempts.begin("u")
    attempts.announce("u", ["a", "b"])
    attempts.give_up("u", 900.5)
    attempts.begin("u")
    news = attempts.news()
    assert news.deaths == (Death("u"), Death("u", 900.5, ("a", "b")))
    assert news.rows == {"detect": 4}
    assert news.signs > first.signs
    assert attempts.news().deaths == ()
    attempts.end("u", {"detect": 2})
    assert attempts.news().rows == {"detect": 6}
