"""Help, exit codes and the messages for a command line that cannot be run."""

from __future__ import annotations

import re

import pytest

from diptych.errors import ConfigError, UserError
from diptych_pipelines import main as main_module
from diptych_pipelines.arguments import split_words
from diptych_pipelines.commands import DOMAIN, GENERAL

HELP = [("list",), ("configs",), *(("sines", each.name) for each in DOMAIN), ("sines", "evaluate", "linear")]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_has_a_sentence_all_options_and_two_examples(diptych, words):
    result = diptych(*words, "--help")
    assert (result.code, result.err) == (0, "")
    usage, sentence = result.out.split("\n\n")[:2]
    assert usage.startswith(f"usage: diptych {' '.join(words[:2])}")
    assert sentence.endswith(".")
    examples = result.out.split("examples:\n")[1].splitlines()
    assert len(examples) == 2
    assert all(each.startswith(f"  diptych {words[0]}") for each in examples)
    assert "jsonargparse" not in result.out
    assert max(map(len, result.out.splitlines())) <= 110


def test_pretrain_help_explains_every_setting_with_its_default(diptych):
    text = diptych("sines", "pretrain", "--help").out
    flat = re.sub(r"\s+", " ", text)
    assert (
        "--data.people INTEGER How many people are simulated, each with a pitch of their own (default: 24)"
        in flat
    )
    assert "--trainer.progress auto|off" in flat
    assert "--encoder CLASS the class path of what makes a Module (required)" in flat
    assert "with diptych_sines.learning.WaveEncoder: --encoder.width INTEGER Size of an embedding" in flat
    entries = [line for line in text.splitlines() if line.startswith("  --")]
    defaults = flat.count("(default: ") + flat.count("(required)")
    assert defaults >= len(entries) - 1  # --debug takes no value


def test_evaluate_help_lists_the_evaluators_then_the_options_of_one(diptych):
    every = diptych("sines", "evaluate", "--help").out
    assert "nearest" in every
    assert "How many test waves have the label of the training wave nearest to them." in every
    one = diptych("sines", "evaluate", "linear", "--help").out
    assert "options of linear:" in one
    assert "--fractions" in one
    assert "--data.path" in one


def test_help_explains_what_an_evaluator_inherits_and_what_it_says_anew(diptych):
    linear, nearest = (
        " ".join(diptych("sines", "evaluate", each, "--help").out.split()) for each in ("linear", "nearest")
    )
    assert "--draws INTEGER Number of bootstrap resamples of the test patients (default: 2000)" in linear
    assert "--fractions VALUE Shares of the labelled training patients to fit on; a list of numbers" in linear
    assert linear.index("--label TEXT Name of the label to predict (required)") < linear.index("--strengths")
    # of a function, options are what follows study and encoder
    assert (
        "options of nearest: --label TEXT Name of the label (required) --device TEXT Where to embed"
        in nearest
    )


def test_without_a_command_the_overview_is_printed(diptych):
    result = diptych()
    assert result.code == 2
    for command in (*GENERAL, *DOMAIN):
        assert f"  {command.name}" in result.out
    assert diptych("--help").code == 0
    assert diptych("--version").out.startswith("diptych 0.")
    assert diptych("sines").code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lst",), "no command or domain is called 'lst'; did you mean 'list'?"),
        (("sinse", "pretrain"), "no command or domain is called 'sinse'; did you mean 'sines'?"),
        (("sines", "pretain"), "sines has no command 'pretain'; did you mean 'pretrain'?"),
        (
            ("sines", "evaluate", "liner", "--run", "x"),
            "sines has no evaluator 'liner'; did you mean 'linear'?",
        ),
        (("sines", "pretrain"), "either --config FILE, for a new run, or --resume RUN"),
        (("sines", "pretrain", "--config"), "option --config needs a value"),
        (("sines", "pretrain", "-c", "x"), "no option is called -c"),
        (("sines", "embed", "out.csv", "--run", "x"), "ends in .parquet or .npz, came 'out.csv'"),
        (("sines", "report", "x", "y"), "y: one argument too many"),
        (("sines", "embed", "data", "out.csv", "more", "--run", "x"), "more: one argument too many"),
        (("sines", "drw"), "sines has no command 'drw'; did you mean 'draw'?"),
        (("sines", "draw"), "PITCH: missing; Its frequency in Hz, above 0"),
        (("sines", "draw", "high"), "PITCH: expected a number, came 'high'"),
        (("sines", "draw", "1", "--point", "2"), "--point: no such option; did you mean "),
        (("sines", "draw", "0"), "a pitch is above 0 Hz, got 0"),
        (("sines", "report", "x", "--runn", "y"), "--runn: no such option"),
        (("sines", "embed"), "2 faults in the command line; nothing was read or written:\n  OUT: missing"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_message(diptych, here, words, message):
    result = diptych(*words)
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    assert "Traceback" not in result.err
    assert list(here.iterdir()) == []


def test_a_command_of_one_domain_runs_and_explains_itself(diptych):
    assert diptych("sines", "draw", "2.5", "--points", "4") == (0, "0.00 1.00 0.00 -1.00\n", "")
    text = diptych("sines", "draw", "--help").out
    assert text.startswith(
        "usage: diptych sines draw PITCH [--option VALUE ...]\n\nPrints one period of a wave"
    )
    assert "--points INTEGER" in text
    assert "commands of sines alone: draw" in diptych("sines", "--help").out


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("the disk is full; make room"), 1, "diptych: the disk is full; make room\n"),
        (ConfigError("wrong"), 2, "diptych: wrong\n"),
        (KeyboardInterrupt(), 130, "diptych: interrupted\n"),
        (PermissionError(13, "Permission denied", "a.npz"), 1, "diptych: Permission denied (a.npz)\n"),
    ],
)
def test_errors_of_the_user_become_a_line_and_a_code(diptych, monkeypatch, error, code, message):
    def fail(*arguments: object) -> int:
        raise error

    monkeypatch.setattr(main_module, "_run", fail)
    assert diptych("list") == (code, "", message)
    if code in (1, 2):
        assert "Traceback" in diptych("list", "--debug").err


def test_words_are_split_whatever_their_order():
    words = split_words(["a", "--x.y", "-3", "b", "--z=1=2", "--debug", "--", "--c"])
    assert words.positionals == ("a", "b", "--c")
    assert words.options == (("x.y", "-3"), ("z", "1=2"))
    assert words.flags == {"--debug"}
