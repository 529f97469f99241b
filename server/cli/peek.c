/* segue peek: what is in data files, for a person who has just got them. */
#include "cli/peek.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "core/access.h"
#include "core/error.h"
#include "source/foreign.h"
#include "source/inflate.h"
#include "source/tfrecord/framing.h"

enum { TFRECORD, FILES, KINDS, BAR_WIDTH = 40 };

/* A file that no source of segue reads as it is: what it is, and what to do. */
struct stranger {
	const char *path, *what, *way;
	struct segue_peek_arrays arrays;
};

struct peek {
	struct segue_cli_progress progress;
	struct segue_peek_found found[KINDS];
	struct stranger *stranger; /* files of other kinds */
	size_t strangers;
};

/* ---- Kinds ---- */

/* What nothing but the ending of the name tells, and what nothing tells. */
static const struct segue_foreign
	csv = {.name = "a table as text (CSV)",
		.advice = "'segue convert' makes a sequence file of it, which segue.Files reads"},
	unknown = {.name = "something else",
		.advice = "read it in Python, and give the arrays to segue.convert"};

static const struct segue_foreign *other_kind(const char *path, const uint8_t *bytes, size_t size)
{
	const struct segue_foreign *kind = segue_foreign_of(bytes, size);
	const char *ending = strrchr(path, '.');

	if (kind)
		return kind;
	return ending && strcmp(ending, ".csv") == 0 ? &csv : &unknown;
}

static struct stranger *add_stranger(
	struct peek *peek, const char *path, const char *what, const char *way)
{
	peek->stranger = segue_cli_need(
		reallocarray(peek->stranger, peek->strangers + 1, sizeof(*peek->stranger)));
	peek->stranger[peek->strangers] = (struct stranger){.path = path, .what = what, .way = way};
	return &peek->stranger[peek->strangers++];
}

static int look(struct peek *peek, const char *path, int fd, uint64_t size)
{
	const struct segue_packing *packing;
	const struct segue_foreign *other;
	uint8_t first[SEGUE_FOREIGN_BEGIN];
	ssize_t got = segue_read_at(fd, 0, first, sizeof(first));
	struct segue_peek_found *found = &peek->found[TFRECORD];

	if (got < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s cannot be read", path);
	packing = segue_packing_of(first, (size_t)got);
	if (got >= 8 && memcmp(first, SEGUE_SEQFILE_MAGIC, 8) == 0) {
		found = &peek->found[FILES];
		segue_peek_add_file(found, path, size);
		return segue_peek_seqfile(found, fd);
	}
	if (segue_tfrecord_format.begins(first, (size_t)got) ||
		(packing && (strcmp(packing->name, "gzip") == 0 ||
				    strcmp(packing->name, "zlib") == 0))) {
		segue_peek_add_file(found, path, size);
		return segue_peek_tfrecord(found, fd);
	}
	other = other_kind(path, first, (size_t)got);
	if (size == 0)
		add_stranger(peek, path, "empty", "it has nothing to read");
	else if (packing)
		add_stranger(peek, path, packing->name, packing->unpack);
	else
		add_stranger(peek, path, other->name, other->advice)->arrays =
			segue_peek_arrays_of(other, first, (size_t)got);
	return 0;
}

static int look_at(struct peek *peek, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc = 0;
	struct stat info;

	if (fd < 0 && errno == EACCES)
		return segue_fail_access(SEGUE_ESYSTEM, path);
	if (fd < 0 || fstat(fd, &info) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "%s", path);
	else if (S_ISDIR(info.st_mode))
		rc = segue_fail(SEGUE_ESYSTEM, "%s: is a directory: name the files in it, %s/*",
			path, path);
	else if (!S_ISREG(info.st_mode))
		rc = segue_fail(SEGUE_ESYSTEM, "%s is no file", path);
	else
		rc = look(peek, path, fd, (uint64_t)info.st_size);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* ---- What is said ---- */

static void print_files(struct json_object *files)
{
	static const struct segue_cli_column columns[] = {{"FILE", "file"},
		{"PACKED", "compression"}, {"SIZE", "bytes", true}, {"SEQUENCES", "sequences"},
		{"STEPS", "steps"}, {"ALL", "all"}, {"DAMAGED", "damaged"}};
	struct segue_cli_table table;

	segue_cli_table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < segue_json_count(files); i++)
		segue_cli_table_row(&table, segue_json_at(files, i), NULL);
	segue_cli_table_print(&table, 0);
	for (size_t i = 0; i < segue_json_count(files); i++) {
		struct json_object *file = segue_json_at(files, i);

		if (*segue_json_get_text(file, "trouble"))
			printf("%s: %s\n", segue_cli_member(file, "file"),
				segue_cli_member(file, "trouble"));
	}
}

static void print_keys(struct json_object *files)
{
	struct json_object *keys = json_object_object_get(segue_json_at(files, 0), "keys");

	for (size_t i = 0; i < segue_json_count(keys); i++)
		printf("%s%s", i ? ", " : "keys       ", segue_cli_text(segue_json_at(keys, i)));
	if (segue_json_count(keys) > 0)
		puts(", ...");
}

static void print_histogram(struct json_object *bars)
{
	uint64_t most = 1;

	for (size_t i = 0; i < segue_json_count(bars); i++) {
		uint64_t count = segue_json_get_unsigned(segue_json_at(bars, i), "sequences");
		most = count > most ? count : most;
	}
	for (size_t i = 0; i < segue_json_count(bars); i++) {
		struct json_object *bar = segue_json_at(bars, i);
		double share = (double)segue_json_get_unsigned(bar, "sequences") / (double)most;
		int width = (int)(share * BAR_WIDTH + 0.5);

		printf("%10s to %-10s ", segue_cli_member(bar, "from"),
			segue_cli_member(bar, "to"));
		for (int k = 0; k < width; k++)
			putchar('#');
		printf("%s%s\n", width ? " " : "", segue_cli_member(bar, "sequences"));
	}
}

static void print_features(struct json_object *features)
{
	for (size_t i = 0; i < segue_json_count(features); i++) {
		struct json_object *feature = segue_json_at(features, i);
		const char *fault = segue_cli_member(feature, "fault");
		struct json_object *shape = json_object_object_get(feature, "shape");

		printf("%-10s %s %s", segue_cli_member(feature, "place"),
			segue_cli_member(feature, "name"), segue_cli_member(feature, "dtype"));
		for (size_t k = 0; k < segue_json_count(shape); k++)
			printf("%s%s%s", k ? ", " : "[", segue_cli_text(segue_json_at(shape, k)),
				k + 1 == segue_json_count(shape) ? "]" : "");
		if (strcmp(segue_cli_member(feature, "form"), "ragged") == 0)
			printf(" ragged");
		printf("%s%s\n", *fault ? ": left out, " : "", fault);
	}
}

/* Line by line: a terminal obeys nothing that is in it. */
static void print_python(struct json_object *found)
{
	const char *text = segue_json_get_text(found, "python");

	if (*text)
		putchar('\n');
	while (*text) {
		size_t size = strcspn(text, "\n");
		char *line = segue_cli_printable(text, size);

		puts(line);
		free(line);
		text += size + (text[size] == '\n');
	}
}

static void print_found(struct json_object *found)
{
	struct json_object *steps = json_object_object_get(found, "steps");
	struct json_object *notes = json_object_object_get(found, "notes");
	struct json_object *files = json_object_object_get(found, "files");

	printf("%s\n", strcmp(segue_json_get_text(found, "kind"), "files") == 0
			       ? "sequence files (segue.Files)"
			       : "TFRecord files (segue.TFRecord)");
	print_files(files);
	printf("\nsequences  %s%s\n", segue_cli_member(found, "sequences"),
		segue_json_get_bool(found, "all") ? "" : ", and more: --all looks at all of them");
	print_keys(files);
	if (*segue_cli_member(steps, "median")) {
		printf("steps      %s to %s, median %s, %s in all\n",
			segue_cli_member(steps, "min"), segue_cli_member(steps, "max"),
			segue_cli_member(steps, "median"), segue_cli_member(steps, "total"));
		print_histogram(json_object_object_get(found, "histogram"));
	}
	print_features(json_object_object_get(found, "features"));
	for (size_t i = 0; i < segue_json_count(notes); i++)
		printf("note       %s\n", segue_cli_text(segue_json_at(notes, i)));
	print_python(found);
}

static bool same_kind(struct json_object *one, struct json_object *other)
{
	return strcmp(segue_json_get_text(one, "what"), segue_json_get_text(other, "what")) == 0 &&
	       strcmp(segue_json_get_text(one, "way"), segue_json_get_text(other, "way")) == 0;
}

/* What is said of one file holds for all of its kind that follow it. */
static void print_others(struct json_object *others)
{
	size_t count = segue_json_count(others), next;

	for (size_t i = 0; i < count; i = next) {
		struct json_object *other = segue_json_at(others, i);

		for (next = i + 1; next < count; next++)
			if (!same_kind(other, segue_json_at(others, next)))
				break;
		printf("%s", segue_cli_member(other, "file"));
		if (next - i > 1)
			printf(" and %zu more", next - i - 1);
		printf(": %s\n  %s\n", segue_cli_member(other, "what"),
			segue_cli_member(other, "way"));
	}
}

static void print_report(const struct segue_cli_options *options, struct json_object *report)
{
	struct json_object *kinds = json_object_object_get(report, "kinds");
	struct json_object *rest = json_object_object_get(report, "others");
	struct json_object *arrays = json_object_object_get(report, "arrays");

	(void)options;
	for (size_t i = 0; i < segue_json_count(kinds); i++) {
		if (i)
			putchar('\n');
		print_found(segue_json_at(kinds, i));
	}
	if (segue_json_count(kinds) && segue_json_count(rest))
		putchar('\n');
	print_others(rest);
	for (size_t i = 0; i < segue_json_count(arrays); i++)
		print_python(segue_json_at(arrays, i));
}

/* One program for all files that it opens, from the first one of them on. */
static void put_arrays(struct segue_json *json, const struct peek *peek, size_t first)
{
	const struct segue_peek_arrays *arrays = &peek->stranger[first].arrays;
	const char **path;
	char *python;
	size_t count = 0;

	for (size_t i = 0; i < first; i++)
		if (segue_peek_arrays_equal(&peek->stranger[i].arrays, arrays))
			return;
	path = segue_cli_need(calloc(peek->strangers, sizeof(*path)));
	for (size_t i = first; i < peek->strangers; i++)
		if (segue_peek_arrays_equal(&peek->stranger[i].arrays, arrays))
			path[count++] = peek->stranger[i].path;
	python = segue_peek_arrays_python(arrays, path, count);
	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "files", count);
	segue_json_string(json, "python", python);
	segue_json_end(json, '}');
	free(python);
	free(path);
}

static int make_report(struct peek *peek, char **report)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '{');
	segue_json_begin(&json, "kinds", '[');
	for (size_t i = 0; i < KINDS; i++)
		if (peek->found[i].files > 0)
			segue_peek_report(&json, &peek->found[i]);
	segue_json_end(&json, ']');
	segue_json_begin(&json, "others", '[');
	for (size_t i = 0; i < peek->strangers; i++) {
		const struct stranger *stranger = &peek->stranger[i];

		segue_json_begin(&json, NULL, '{');
		segue_json_bytes(&json, "file", stranger->path, strlen(stranger->path));
		segue_json_string(&json, "what", stranger->what);
		segue_json_string(&json, "way", stranger->way);
		segue_json_end(&json, '}');
	}
	segue_json_end(&json, ']');
	segue_json_begin(&json, "arrays", '[');
	for (size_t i = 0; i < peek->strangers; i++)
		if (peek->stranger[i].arrays.form != SEGUE_FOREIGN_NO_ARRAYS)
			put_arrays(&json, peek, i);
	segue_json_end(&json, ']');
	segue_json_end(&json, '}');
	return segue_json_take(&json, report);
}

static int run_peek(const struct segue_cli_options *options)
{
	struct peek peek = {.found = {[TFRECORD].kind = "tfrecord", [FILES].kind = "files"}};
	int status = SEGUE_CLI_FINE, rc = 0;
	char *report;

	for (size_t i = 0; i < KINDS; i++) {
		peek.found[i].every = options->all;
		peek.found[i].progress = &peek.progress;
	}
	for (int i = 0; i < options->operand_count; i++) {
		rc = look_at(&peek, options->operands[i]);
		segue_cli_end_progress(&peek.progress);
		peek.progress = (struct segue_cli_progress){0};
		if (rc)
			status = segue_cli_fail();
	}
	rc = make_report(&peek, &report);
	for (size_t i = 0; i < KINDS; i++)
		segue_peek_finish(&peek.found[i]);
	free(peek.stranger);
	if (rc)
		return segue_cli_fail();
	rc = segue_cli_show(options, report, print_report);
	return rc ? rc : status;
}

const struct segue_cli_command segue_cli_peek = {
	.name = "peek",
	.operands = "FILE...",
	.summary = "show what is in data files",
	.help = "TFRecord and sequence files: how many sequences, how long they are, which\n"
		"features they have, what is damaged, and the Python that opens them as a\n"
		"stream. Of a TFRecord file the first 1000 records are read, of a sequence file\n"
		"its index; with --all everything, each checksum. Of other kinds of files it\n"
		"says what they are, and how segue gets them; of .npy, .npz and .wav in Python.\n\n"
		"Exit status: 0 fine (damage too is a finding), 1 a file cannot be read, 2 wrong\n"
		"usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_ALL_RECORDS,
	.operands_min = 1,
	.operands_max = INT_MAX,
	.run = run_peek,
};
