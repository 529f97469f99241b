"""The guide's program in C: compiled against the library of build/, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import segue
from segue.tfrecord import SequenceExampleWriter

ROOT = Path(__file__).parents[2]


def built(tmp_path: Path, text: str) -> Path:
    """The program, compiled."""
    library = ROOT / "build" / "lib"
    compiler = shutil.which("cc")
    if compiler is None or not (library / "libsegue.so").exists():
        pytest.skip("SKIP: no C compiler, or no library in build/ (scripts/build)")
    (tmp_path / "sums.c").write_text(text)
    subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Werror", "sums.c", "-o", "sums",
         f"-I{ROOT}/lib/include", f"-L{library}", f"-Wl,-rpath,{library}", "-lsegue"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    return tmp_path / "sums"


def started(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The program, when it has ended."""
    program = os.environ.get("SEGUE_PROGRAM") or str(ROOT / "build" / "server" / "segue")
    return subprocess.run(
        ["./sums"], cwd=tmp_path, env=os.environ | {"SEGUE_PROGRAM": program},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_it_sums_all_tokens(tmp_path: Path) -> None:
    blocks = re.findall(r"```c\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    built(tmp_path, blocks[0])
    (tmp_path / "data").mkdir()
    (tmp_path / "runs").mkdir()
    with SequenceExampleWriter(tmp_path / "data" / "a.tfrecord") as writer:
        for steps in range(1, 50):  # beyond two segments
            writer.write({"token": np.arange(steps, dtype=np.float32)}, {})
    run = started(tmp_path)
    total = sum(steps * (steps - 1) // 2 for steps in range(1, 50))
    assert (run.returncode, run.stdout) == (0, f"the sum of all tokens is {total}\n"), run.stderr


# What was inserted, twice.
AGAIN = r"""
#include <segue/segue.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	const struct segue_feature x = {.size = sizeof(x), .name = "x", .dtype = SEGUE_INT64};
	const struct segue_attach_options fresh = {.size = sizeof(fresh), .start = SEGUE_START_FRESH};
	struct segue_spec *spec = NULL;
	struct segue_client *client = NULL;
	struct segue_stream *stream = NULL;
	struct segue_lane *lane = NULL;
	struct segue_batch *batch;
	char *paths = NULL;
	long long total = 0;
	size_t size = 0;
	int rc;

	if ((rc = segue_open("run", NULL, &client)) == 0)
		rc = segue_stream_files(client, "live", &paths, &size);
	if (rc == 0 && (rc = segue_spec_create("again", &spec)) == 0)
		rc = segue_spec_set_source(spec, SEGUE_SOURCE_FILES);
	for (const char *path = paths; rc == 0 && path < paths + size; path += strlen(path) + 1)
		rc = segue_spec_add_path(spec, path);
	segue_free(paths);
	if (rc == 0 && (rc = segue_spec_add_sequence(spec, &x)) == 0 &&
		(rc = segue_spec_set(spec, SEGUE_SPEC_NUM_UNROLL, 2)) == 0 &&
		(rc = segue_spec_set(spec, SEGUE_SPEC_BATCH_SIZE, 1)) == 0 &&
		(rc = segue_spec_set(spec, SEGUE_SPEC_LANES, 1)) == 0 &&
		(rc = segue_spec_set(spec, SEGUE_SPEC_EPOCHS, 2)) == 0 &&
		(rc = segue_stream_open(client, spec, &stream)) == 0)
		rc = segue_lane_attach(stream, 0, &fresh, &lane);
	segue_spec_destroy(spec);
	while (rc == 0 && (rc = segue_lane_next(lane, SEGUE_FOREVER, &batch)) == 0) {
		const long long *steps = segue_batch_sequence(batch, 0);
		total += steps[0] + steps[1];
		rc = segue_batch_commit(batch);
		segue_batch_release(batch);
	}
	if (rc == SEGUE_EEND)
		printf("%lld\n", total);
	else
		fprintf(stderr, "%s\n", segue_error_detail());
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	return rc != SEGUE_EEND;
}
"""


def test_what_was_inserted_is_read_again(tmp_path: Path) -> None:
    """By the paths that segue_stream_files() gives, whatever is in the store's name."""
    built(tmp_path, AGAIN)
    (tmp_path / "[r]*").mkdir()
    (tmp_path / "run").symlink_to("[r]*")
    x = {"x": segue.Feature("int64")}
    with segue.open(tmp_path / "run") as client:
        stream = client.stream("live", segue.Push(capacity=100), x, num_unroll=2, batch_size=1)
        with stream.producer("a") as producer:
            for number in range(1, 21):
                producer.insert({"x": np.full(number, number)})
        early = started(tmp_path)
        assert early.returncode == 1 and "the input of stream 'live' goes on" in early.stderr
        stream.end_input()
    run = started(tmp_path)
    total = 2 * sum(number * number for number in range(1, 21))
    assert (run.returncode, run.stdout) == (0, f"{total}\n"), run.stderr


# What is kept under a key, changed, and all of it listed.
KEYED = r"""
#include <segue/segue.h>
#include <stdio.h>
#include <string.h>

static int show(void *arg, const struct segue_states *states)
{
	double value;

	memcpy(&value, states->bytes, sizeof(value));
	printf("%.*s %d %llu %g;", (int)states->key_size, states->key, (int)states->kind,
		(unsigned long long)states->step, value);
	++*(int *)arg;
	return 0;
}

int main(void)
{
	struct segue_states_cursor cursor = {0};
	struct segue_client *client = NULL;
	const double value = 2.5;
	int seen = 0, rc = segue_open("run", NULL, &client);

	if (!rc)
		rc = segue_states_put(client, "train", NULL, "b", &value, sizeof(value));
	if (!rc && segue_states_put(client, "train", NULL, "b", &value, 4) != SEGUE_ESTATE)
		rc = SEGUE_EINVAL;
	if (!rc)
		rc = segue_states_put(client, "train", NULL, "c", &value, sizeof(value));
	if (!rc)
		rc = segue_states_delete(client, "train", NULL, "c");
	if (!rc && segue_states_get(client, "train", NULL, "c", false, show, &seen) != SEGUE_ENOTFOUND)
		rc = SEGUE_EINVAL;
	if (!rc)
		rc = segue_states_get(client, "train", NULL, "a", false, show, &seen);
	while (!rc && !cursor.done)
		rc = segue_states_list(client, "train", NULL, false, &cursor, show, &seen);
	if (rc)
		fprintf(stderr, "%s: %s\n", segue_strerror(rc), segue_error_detail());
	segue_client_close(client);
	return rc || seen != 3;
}
"""


def test_states_by_key(tmp_path: Path) -> None:
    built(tmp_path, KEYED)
    with segue.open(tmp_path / "run") as client:
        client.stream(
            "train",
            segue.Push(),
            {"x": segue.Feature("int64")},
            states={"h": segue.State("float64")},
            num_unroll=2,
            batch_size=1,
            keep_final=True,
        )
        client.states("train").put("a", {"h": np.float64(1.5)})
        run = started(tmp_path)
    assert run.returncode == 0, run.stderr
    first, *listed, last = run.stdout.split(";")
    assert (first, last, sorted(listed)) == ("a 2 0 1.5", "", ["a 2 0 1.5", "b 2 0 2.5"])
