"""A whole run from the command line: three commands, no network, the same numbers again, a stop and a resumption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from diptych.discovery import find_domains
from diptych.settings.plans import build, plan_of_run


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "runs").iterdir()
    return found


def test_the_network_is_really_blocked(environment):
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no network here" in done.stderr
    local = "import socket; socket.socket(socket.AF_UNIX); socket.socketpair(socket.AF_UNIX)"
    subprocess.run([sys.executable, "-c", local], env=environment, check=True)


def test_the_demo_prints_its_three_commands_and_their_results_without_a_network(demo):
    result, run = demo
    commands = [line for line in result.out.splitlines() if line.startswith("$ ")]
    assert commands == [
        "$ diptych sines pretrain --config sines/demo.yaml --run.folder runs",
        f"$ diptych sines evaluate nearest --run {run} --label pitch",
        f"$ diptych sines embed {run}/embeddings.parquet --run {run}",
    ]
    assert "pretrained" in result.out
    assert "random weights" in result.out
    assert "power spectrum" in result.out
    assert f"report: {run}/report.html" in result.out
    assert "epoch 4, step 32 of 32" in result.err  # progress goes to stderr alone
    assert "epoch" not in result.out.replace("warm", "")
    assert "Traceback" not in result.err


def test_a_run_folder_holds_everything(demo):
    _, run = demo
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "data.json",
        "splits.csv",
        "quarantine.jsonl",
        "metrics.csv",
        "checkpoints",
        "encoder.safetensors",
        "model_card.md",
        "report.html",
    }
    assert {path.name for path in (run / "evaluations").iterdir()} == {
        "nearest-pitch.csv",
        "nearest-pitch.txt",
        "nearest-pitch.html",
    }


def test_the_report_is_one_file_that_loads_nothing(demo):
    _, run = demo
    text = (run / "report.html").read_text()
    for foreign in ("<script", "<link", "<img", "@import", "url(", "src="):
        assert foreign not in text.replace("url(#", "")
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert text.count("<svg") >= 6
    for shown in ("effective rank", "learning rate", "max_epochs: 4", "nearest training wave", "Quarantine"):
        assert shown in text


def test_parquet_and_npz_hold_the_same_embeddings_with_salted_ids(demo, diptych, here):
    _, run = demo
    result = diptych("sines", "embed", "out.npz", "--run", str(run), "--device", "cpu")
    assert (result.code, result.out) == (0, "out.npz\n")
    frame = pd.read_parquet(run / "embeddings.parquet")
    arrays = np.load(here / "out.npz", allow_pickle=False)
    columns = [name for name in frame.columns if name.startswith("e")]
    assert columns == [f"e{number:03d}" for number in range(16)]
    assert list(frame.columns[:5]) == ["sample", "patient", "recording", "trial", "split"]
    np.testing.assert_allclose(arrays["embeddings"], frame[columns].to_numpy(), rtol=1e-4, atol=1e-6)
    for name in ("sample", "patient", "recording", "trial", "split"):
        assert (arrays[name] == frame[name].to_numpy()).all()
    assert frame["patient"].str.fullmatch("[0-9a-f]{16}").all()
    assert len(frame) == 320


def test_an_exported_program_gives_the_embeddings(demo, diptych, here):
    _, run = demo
    result = diptych("sines", "export", "encoder.pt2", "--run", str(run))
    assert (result.code, result.out) == (0, "encoder.pt2\n")
    assert "takes float32 of shape (free, " in result.err
    study = build(plan_of_run(next(each for each in find_domains() if each.name == "sines"), run, []))
    view = next(iter(study.plain(np.arange(5)))).views[0]
    given = torch.export.load(here / "encoder.pt2").module()(view)
    frame = pd.read_parquet(run / "embeddings.parquet")
    expected = frame.filter(regex="^e[0-9]").to_numpy()[:5]
    np.testing.assert_allclose(given["whole"].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_an_export_to_another_kind_of_file_is_refused(demo, diptych):
    _, run = demo
    result = diptych("sines", "export", "encoder.onnx", "--run", str(run))
    assert result.code == 2
    assert "expected a file that ends in .pt2 or .safetensors, came 'encoder.onnx'" in result.err


def test_data_to_embed_may_be_named_first(demo, diptych, here, waves):
    run = demo[1]
    named = diptych("sines", "embed", str(waves), "named.npz", "--run", str(run), "--device", "cpu")
    set_ = diptych(
        "sines", "embed", "set.npz", "--run", str(run), "--data.path", str(waves), "--device", "cpu"
    )
    assert (named.code, set_.code) == (0, 0), named.err + set_.err
    with np.load("named.npz") as one, np.load("set.npz") as other:
        np.testing.assert_array_equal(one["embeddings"], other["embeddings"])


def test_other_data_are_embedded_with_the_encoder_of_a_run(demo, diptych, here, waves):
    _, run = demo
    result = diptych("sines", "embed", "other.parquet", "--run", str(run), "--data.path", str(waves))
    assert result.code == 0
    frame = pd.read_parquet(here / "other.parquet")
    assert len(frame) == 12 * 2 * 4
    assert frame["patient"].nunique() == 12
    assert not set(frame["patient"]) & {f"{person:02d}" for person in range(12)}


def test_evaluations_are_kept_side_by_side_and_shown_in_the_report(demo, diptych):
    _, run = demo
    options = ["--label", "pitch", "--seeds", "1", "--draws", "50", "--fractions", "[1.0, 0.5]"]
    result = diptych("sines", "evaluate", "linear", "--run", str(run), *options)
    assert result.code == 0, result.err
    assert "pretrained - random weights" in result.out
    again = diptych("sines", "evaluate", "nearest", "--run", str(run), "--label", "pitch")
    assert again.code == 0
    stems = {path.stem for path in (run / "evaluations").glob("*.csv")}
    assert stems >= {"nearest-pitch", "nearest-pitch-2", "linear-pitch"}
    assert "pitch: linear probe" in (run / "report.html").read_text()


def test_evaluate_tells_all_that_is_wrong_with_its_options(demo, diptych):
    _, run = demo
    words = ["--seeds", "x", "--labl", "pitch", "--data.pth", "waves"]
    result = diptych("sines", "evaluate", "linear", "--run", str(run), *words)
    assert result.code == 2
    assert "4 faults in " in result.err
    for message in (
        "--label: missing; expected text",
        "--seeds: expected a whole number, came 'x'",
        "labl: no such setting; did you mean label?",
        "data.pth: no such setting; did you mean data.path?",
    ):
        assert message in result.err


def test_an_option_that_an_evaluator_refuses_is_told_before_data_are_read(demo, diptych):
    _, run = demo
    words = ["--label", "pitch", "--data.path", "/nowhere", "--strengths", "[0.0]"]
    result = diptych("sines", "evaluate", "linear", "--run", str(run), *words)
    assert result.code == 2
    [line] = [line for line in result.err.splitlines() if "strengths" in line]
    assert line == "  linear: the strengths C to choose from are positive numbers; expected at least one"
    assert "nothing was read or written" in result.err
    more = diptych("sines", "evaluate", "linear", "--run", str(run), *words, "--data.sede", "1")
    assert f"2 faults in {run / 'config.yaml'} and the command line" in more.err
    assert line in more.err


def test_an_evaluator_that_is_a_function_says_what_it_refuses_when_it_runs(demo, diptych):
    _, run = demo
    result = diptych("sines", "evaluate", "nearest", "--run", str(run), "--label", "tone")
    assert result.code == 2
    assert "there is no label 'tone'; the config has pitch" in result.err


def test_a_run_goes_on_from_the_weights_of_another(demo, diptych, here):
    _, run = demo
    given = str(run / "encoder.safetensors")
    frozen = [
        "--optimizer.lr",
        "0",
        "--trainer.max_epochs",
        "1",
        "--run.folder",
        "on",
        "--monitor.keep",
        "last",
    ]
    result = diptych("sines", "pretrain", "--config", "sines/demo.yaml", "--run.start", given, *frozen)
    assert result.code == 0, result.err
    (after,) = (here / "on").iterdir()
    one, other = load_file(given), load_file(after / "encoder.safetensors")
    assert all((one[name] == other[name]).all() for name in one)


def test_weights_to_go_on_from_that_do_not_fit_leave_no_run(demo, diptych, here):
    _, run = demo
    given = ["--run.start", str(run / "encoder.safetensors"), "--encoder.width", "8", "--run.folder", "on"]
    result = diptych("sines", "pretrain", "--config", "sines/demo.yaml", *given)
    assert result.code == 1
    assert "do not fit this encoder" in result.err
    assert not list((here / "on").iterdir())


def test_an_encoder_that_does_not_fit_is_refused(demo, diptych):
    _, run = demo
    result = diptych("sines", "embed", "x.npz", "--run", str(run), "--encoder.width", "8")
    assert result.code == 1
    assert "do not fit this encoder" in result.err


def test_inspect_counts_everything_and_names_what_was_set_aside(diptych, here, waves):
    result = diptych(
        "sines",
        "inspect",
        str(waves),
        "--labels.pitch.above",
        "6",
        "--manifest",
        "m.csv",
        "--quarantine",
        "q.jsonl",
    )
    assert result.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines() if line}
    assert rows["all"] == ["12", "24", "96"]
    parts = [[int(each) for each in rows[name]] for name in ("train", "validation", "test")]
    assert [sum(column) for column in zip(*parts, strict=True)] == [12, 24, 96]
    assert "quarantined: 2 files" in result.out
    assert "20_0.npy: not finite: NaN or infinity" in result.out
    assert "21_0.npy: too short: 10 steps" in result.out
    assert "pitch: " in result.out
    assert len(pd.read_csv(here / "m.csv")) == 24
    assert len((here / "q.jsonl").read_text().splitlines()) == 2


def test_inspect_of_an_empty_folder_is_an_error(diptych, here):
    (here / "empty").mkdir()
    result = diptych("sines", "inspect", "empty")
    assert result.code == 1
    assert "found none that can be used" in result.err


def test_the_resolved_config_gives_the_same_encoder_again(demo, process, tmp_path):
    _, run = demo
    again = process("sines", "pretrain", "--config", str(run / "config.yaml"), folder=tmp_path)
    assert again.code == 0, again.err
    repeated = run_folder(tmp_path)
    assert again.out == f"{repeated}\n"  # the run folder is the result
    assert (repeated / "config.yaml").read_text() == (run / "config.yaml").read_text()
    assert (repeated / "metrics.csv").read_text() == (run / "metrics.csv").read_text()
    first, second = load_file(run / "encoder.safetensors"), load_file(repeated / "encoder.safetensors")
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def interrupted(environment: dict[str, str], folder: Path, number: int, steps: int) -> tuple[int, str, str]:
    """Starts a pretraining, sends a signal in its second epoch, and waits for its end."""
    words = ["sines", "pretrain", "--config", "sines/demo.yaml", "--trainer.max_epochs", str(steps)]
    command = [sys.executable, "-m", "diptych_pipelines.main", *words]
    started = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs are started deaf to Ctrl-C, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("epoch 2"):
            break
    started.send_signal(number)
    out, err = started.communicate(timeout=60)
    return started.returncode, out, err


def test_sigterm_saves_and_a_resumption_gives_the_numbers_of_an_uninterrupted_run(
    environment, process, tmp_path
):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    stopped.mkdir()
    whole.mkdir()
    code, out, err = interrupted(environment, stopped, signal.SIGTERM, 30)
    assert code == 143
    assert out == ""
    assert "asked to stop: saved" in err
    assert "Traceback" not in err
    run = run_folder(stopped)
    assert (run / "checkpoints" / "last.ckpt").is_file()
    unfinished = process("sines", "embed", "x.npz", "--run", str(run), folder=stopped)
    assert unfinished.code == 1
    assert f"go on with pretrain --resume {run}" in unfinished.err
    resumed = process("sines", "pretrain", "--resume", str(run), folder=stopped)
    assert (resumed.code, resumed.out) == (0, f"{run}\n")
    uninterrupted = process(
        "sines", "pretrain", "--config", "sines/demo.yaml", "--trainer.max_epochs", "30", folder=whole
    )
    assert uninterrupted.code == 0
    first, second = (
        load_file(run / "encoder.safetensors"),
        load_file(run_folder(whole) / "encoder.safetensors"),
    )
    assert all((first[name] == second[name]).all() for name in first)
    assert (run / "metrics.csv").read_text() == (run_folder(whole) / "metrics.csv").read_text()


def test_ctrl_c_ends_with_one_line(environment, tmp_path):
    code, out, err = interrupted(environment, tmp_path, signal.SIGINT, 100_000)
    assert code == 130
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("epoch ")] == ["diptych: interrupted"]


def test_environment_and_data_facts_are_plain(demo):
    _, run = demo
    facts = json.loads((run / "data.json").read_text())
    assert sum(each["samples"] for each in facts["splits"].values()) == 320


@pytest.mark.parametrize("name", ["config.yaml", "data.json"])
def test_a_report_of_no_run_is_refused(diptych, here, name):
    (here / "some").mkdir()
    (here / "some" / name).write_text("{}")
    result = diptych("sines", "report", "some")
    assert result.code == 1
    assert "lacks config.yaml or data.json" in result.err
