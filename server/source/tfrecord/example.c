/* SequenceExample and Example: the scan over maps and steps, and the cursors. */
#include "source/tfrecord/example.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "source/source.h"
#include "source/tfrecord/feature.h"
#include "source/tfrecord/message.h"
#include "source/tfrecord/series.h"
#include "source/tfrecord/steps.h"
#include "source/tfrecord/variable.h"

/* Field numbers of SequenceExample; the features of a plain Example have that of the context. */
enum { CONTEXT = 1, FEATURE_LISTS = 2 };

static bool is_plain(const struct segue_spec *spec)
{
	return spec->source.tfrecord.record == SEGUE_RECORD_EXAMPLE;
}

static bool is_dense(const struct segue_field *field)
{
	return field->form == SEGUE_FORM_DENSE;
}

static struct segue_cursor *context_cursor(
	const struct segue_spec *spec, const struct segue_example *example, size_t i)
{
	return &example->cursors[spec->sequence_count + i];
}

struct scan {
	const struct segue_spec *spec;
	struct segue_window *window;
	struct segue_example *example;
	bool key_found;
	/* Where the next name is looked for first: records keep an order. */
	size_t next_sequence, next_context;
};

/* ---- Memory ---- */

static uint64_t context_size(const struct segue_spec *spec, uint64_t *offset)
{
	uint64_t size = 0;

	for (size_t i = 0; i < spec->context_count; i++) {
		if (offset)
			offset[i] = size;
		size += (spec->contexts[i].size + 7) / 8 * 8;
	}
	return size;
}

int segue_example_init(struct segue_example *example, const struct segue_spec *spec)
{
	memset(example, 0, sizeof(*example));
	/* One more than need be: malloc(0) may be NULL. */
	example->cursors =
		calloc(spec->sequence_count + spec->context_count + 1, sizeof(example->cursors[0]));
	example->context_offset =
		calloc(spec->context_count + 1, sizeof(example->context_offset[0]));
	example->context_found = calloc(spec->context_count + 1, sizeof(bool));
	if (example->context_offset)
		example->context = malloc(context_size(spec, example->context_offset) + 1);
	if (example->cursors && example->context_found && example->context)
		return 0;
	segue_example_finish(example);
	return segue_fail(SEGUE_ENOMEM, "no memory for a record's features");
}

void segue_example_finish(struct segue_example *example)
{
	free(example->cursors);
	free(example->context);
	free(example->context_offset);
	free(example->context_found);
	memset(example, 0, sizeof(*example));
}

size_t segue_example_memory(const struct segue_spec *spec)
{
	return (spec->sequence_count + spec->context_count + 1) * sizeof(struct segue_cursor) +
	       (spec->context_count + 1) * (sizeof(uint64_t) + sizeof(bool)) +
	       context_size(spec, NULL) + 1;
}

/* ---- Names ---- */

struct name {
	char bytes[SEGUE_NAME_MAX + 1];
	size_t size; /* > SEGUE_NAME_MAX: `bytes` holds what fits */
};

static int take_name(struct segue_piece *span, struct name *name)
{
	size_t size = (size_t)segue_piece_size(span);
	size_t kept = size < SEGUE_NAME_MAX ? size : SEGUE_NAME_MAX;
	const uint8_t *bytes;
	int rc = segue_window_at(span->window, span->at, kept, &bytes);

	if (rc)
		return rc;
	memcpy(name->bytes, bytes, kept);
	name->bytes[kept] = '\0';
	name->size = size;
	return 0;
}

/* The name as it can stand in a message. */
static const char *printable(const struct name *name, char text[SEGUE_NAME_MAX + 4])
{
	size_t kept = name->size < SEGUE_NAME_MAX ? name->size : SEGUE_NAME_MAX;

	for (size_t i = 0; i < kept; i++) {
		unsigned char c = (unsigned char)name->bytes[i];

		text[i] = c < 32 || c == 127 ? '?' : name->bytes[i];
	}
	strcpy(text + kept, name->size > kept ? "..." : "");
	return text;
}

static bool name_is(const struct name *name, const char *text)
{
	return strlen(text) == name->size && memcmp(text, name->bytes, name->size) == 0;
}

/* The field of that name, tried from *next on; `count` if there is none. */
static size_t find_field(
	const struct segue_field *fields, size_t count, const struct name *name, size_t *next)
{
	for (size_t i = 0; i < count; i++) {
		size_t at = (*next + i) % count;

		if (!name_is(name, fields[at].name))
			continue;
		*next = at + 1;
		return at;
	}
	return count;
}

static int surplus(const struct scan *scan, const char *what, const struct name *name)
{
	char text[SEGUE_NAME_MAX + 4];

	if (scan->spec->source.tfrecord.allow_surplus)
		return 0;
	return segue_fail(SEGUE_EMISFIT,
		"%s '%s': not declared; declare it, or allow surplus features "
		"(TFRecord(..., allow_surplus=True))",
		what, printable(name, text));
}

/* ---- Maps ---- */

static int scan_list(struct scan *scan, const struct name *name, struct segue_piece *value)
{
	const struct segue_spec *spec = scan->spec;
	size_t i = find_field(spec->sequences, spec->sequence_count, name, &scan->next_sequence);
	struct segue_cursor *cursor = &scan->example->cursors[i];
	int rc;

	if (i == spec->sequence_count)
		return surplus(scan, "feature", name);
	*cursor = (struct segue_cursor){.found = true, .begin = value->at, .end = value->end};
	rc = is_dense(&spec->sequences[i])
		     ? segue_steps_scan(&spec->sequences[i], scan->window, cursor)
		     : segue_variable_scan(&spec->sequences[i], scan->window, cursor);
	return rc < 0 ? segue_fail_within(rc, "feature '%s'", spec->sequences[i].name) : rc;
}

/* Takes the Feature of a context entry into the window, whole. */
static int take_context(const struct segue_piece *value, uint64_t limit)
{
	uint64_t size = segue_piece_size(value);
	const uint8_t *bytes;

	if (size > limit)
		return segue_fail(SEGUE_EMISFIT,
			"%" PRIu64
			" bytes, more than the declared values can take; is the shape right?",
			size);
	return segue_window_at(value->window, value->at, size, &bytes);
}

static int scan_key(struct scan *scan, struct segue_piece *value)
{
	struct segue_example *example = scan->example;
	const uint8_t *text = NULL;
	size_t size = 0;
	int rc = take_context(value, 65536);

	if (!rc)
		rc = segue_feature_text(*value, &text, &size);
	if (rc)
		return rc;
	if (size < 1 || size > SEGUE_EXAMPLE_KEY_MAX)
		return segue_fail(SEGUE_EMISFIT, "a key of %zu bytes; allowed are 1 to %d", size,
			SEGUE_EXAMPLE_KEY_MAX);
	if (memchr(text, '\0', size))
		return segue_fail(SEGUE_EMISFIT, "a key must not contain a zero byte");
	memcpy(example->key, text, size);
	example->key_size = size;
	return 0;
}

static int scan_context_field(struct scan *scan, size_t i, struct segue_piece *value)
{
	const struct segue_field *field = &scan->spec->contexts[i];
	struct segue_example *example = scan->example;

	example->context_found[i] = true;
	if (!is_dense(field)) {
		struct segue_cursor *cursor = context_cursor(scan->spec, example, i);

		*cursor = (struct segue_cursor){.begin = value->at, .end = value->end};
		return segue_variable_scan_context(field, scan->window, cursor);
	}
	int rc = take_context(value, segue_feature_limit(field));
	if (rc)
		return rc;
	return segue_feature_decode(field, *value, example->context + example->context_offset[i]);
}

static bool names_key(const struct segue_spec *spec, const struct name *name)
{
	const char *key = spec->source.tfrecord.key_feature;

	return key && name_is(name, key);
}

static int scan_context(struct scan *scan, const struct name *name, struct segue_piece *value)
{
	const struct segue_spec *spec = scan->spec;
	size_t i = find_field(spec->contexts, spec->context_count, name, &scan->next_context);
	bool is_key = names_key(spec, name);
	int rc = 0;

	if (i == spec->context_count && !is_key)
		return surplus(scan, is_plain(spec) ? "feature" : "context feature", name);
	if (is_key) {
		scan->key_found = true;
		rc = scan_key(scan, value);
	}
	if (!rc && i < spec->context_count)
		rc = scan_context_field(scan, i, value);
	if (rc) {
		char text[SEGUE_NAME_MAX + 4];

		return segue_fail_within(rc, "context feature '%s'", printable(name, text));
	}
	return 0;
}

/* A feature of a plain Example. */
static int scan_feature(struct scan *scan, const struct name *name, struct segue_piece *value)
{
	const struct segue_spec *spec = scan->spec;
	size_t i = find_field(spec->sequences, spec->sequence_count, name, &scan->next_sequence);
	struct segue_cursor *cursor = &scan->example->cursors[i];
	int rc = 0;

	if (i == spec->sequence_count || names_key(spec, name))
		rc = scan_context(scan, name, value);
	if (rc || i == spec->sequence_count)
		return rc;
	*cursor = (struct segue_cursor){.found = true, .begin = value->at, .end = value->end};
	rc = is_dense(&spec->sequences[i])
		     ? segue_series_scan(&spec->sequences[i], scan->window, cursor)
		     : segue_variable_scan_series(&spec->sequences[i], scan->window, cursor);
	return rc < 0 ? segue_fail_within(rc, "feature '%s'", spec->sequences[i].name) : rc;
}

/* Called for each entry of both maps; which map is its field number. */
typedef int entry_fn(void *arg, uint64_t map, const struct name *name, struct segue_piece *value);

/* One entry of a map: name and value, in either order. */
static int walk_entry(struct segue_piece *entry, uint64_t map, entry_fn *fn, void *arg)
{
	struct segue_piece value = {entry->window, 0, 0};
	struct name name = {.size = 0};
	int rc = 0;

	while (entry->at < entry->end) {
		struct segue_piece inner;
		uint64_t number;

		rc = segue_piece_take_message(entry, 2, &number, &inner);
		if (!rc && number == 1)
			rc = take_name(&inner, &name);
		else if (!rc && number == 2 && value.at)
			rc = segue_fail(SEGUE_EMISFIT,
				"a map entry has its value in several pieces, which is not read; "
				"write it in one");
		else if (!rc && number == 2)
			value = inner;
		if (rc)
			return rc;
	}
	return fn(arg, map, &name, &value);
}

static int walk_map(struct segue_piece *span, uint64_t map, entry_fn *fn, void *arg)
{
	while (span->at < span->end) {
		struct segue_piece entry;
		uint64_t number;

		int rc = segue_piece_take_message(span, 1, &number, &entry);
		if (!rc && number == 1)
			rc = walk_entry(&entry, map, fn, arg);
		if (rc)
			return rc;
	}
	return 0;
}

/* Goes through a record from its start. */
static int walk(struct segue_window *window, entry_fn *fn, void *arg)
{
	struct segue_piece record = {window, 0, window->blocks->size};

	while (record.at < record.end) {
		struct segue_piece map;
		uint64_t number;

		int rc = segue_piece_take_message(&record, FEATURE_LISTS, &number, &map);
		if (!rc && number <= FEATURE_LISTS)
			rc = walk_map(&map, number, fn, arg);
		if (rc)
			return rc;
	}
	return 0;
}

static int scan_entry(void *arg, uint64_t map, const struct name *name, struct segue_piece *value)
{
	struct scan *scan = arg;

	if (!is_plain(scan->spec))
		return map == CONTEXT ? scan_context(scan, name, value)
				      : scan_list(scan, name, value);
	return map == CONTEXT ? scan_feature(scan, name, value)
			      : surplus(scan, "feature list", name);
}

/* ---- The whole ---- */

static int check_all_found(const struct scan *scan)
{
	const struct segue_spec *spec = scan->spec;

	for (size_t i = 0; i < spec->sequence_count; i++)
		if (!scan->example->cursors[i].found)
			return segue_fail(
				SEGUE_EMISFIT, "feature '%s': missing", spec->sequences[i].name);
	for (size_t i = 0; i < spec->context_count; i++)
		if (!scan->example->context_found[i])
			return segue_fail(SEGUE_EMISFIT, "context feature '%s': missing",
				spec->contexts[i].name);
	if (spec->source.tfrecord.key_feature && !scan->key_found)
		return segue_fail(SEGUE_EMISFIT,
			"context feature '%s': missing; it was named as the records' key",
			spec->source.tfrecord.key_feature);
	return 0;
}

static int unequal(const struct segue_spec *spec, const struct segue_cursor *cursors)
{
	char text[2048];
	size_t used = 0;

	for (size_t i = 0; i < spec->sequence_count && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s=%" PRIu64,
			i ? ", " : "", spec->sequences[i].name, cursors[i].steps);
	return segue_fail(SEGUE_EMISFIT, "its features have different numbers of steps: %s", text);
}

static int check_steps(const struct segue_spec *spec, struct segue_example *example)
{
	uint64_t steps = spec->sequence_count ? example->cursors[0].steps : 0;

	for (size_t i = 1; i < spec->sequence_count; i++)
		if (example->cursors[i].steps != steps)
			return unequal(spec, example->cursors);
	if (steps == 0)
		return segue_fail(SEGUE_EMISFIT, "empty sequence: its features have no steps");
	example->steps = steps;
	return segue_source_check_steps(spec, steps);
}

int segue_example_scan(
	const struct segue_spec *spec, struct segue_window *window, struct segue_example *example)
{
	struct scan scan = {.spec = spec, .window = window, .example = example};
	for (size_t i = 0; i < spec->sequence_count; i++)
		example->cursors[i] = (struct segue_cursor){.found = false};
	for (size_t i = 0; i < spec->context_count; i++)
		example->context_found[i] = false;
	example->key_size = 0;
	int rc = walk(window, scan_entry, &scan);
	if (!rc)
		rc = check_all_found(&scan);
	if (!rc)
		rc = check_steps(spec, example);
	for (size_t i = 0; !rc && i < spec->sequence_count; i++)
		example->cursors[i].position = example->cursors[i].begin;
	return rc;
}

int segue_example_seek(const struct segue_spec *spec, struct segue_example *example, size_t i,
	struct segue_window *window, uint64_t step)
{
	const struct segue_field *field = &spec->sequences[i];
	struct segue_cursor *cursor = &example->cursors[i];

	if (!is_plain(spec))
		return segue_steps_seek(cursor, window, step);
	return is_dense(field) ? segue_series_seek(field, cursor, window, step)
			       : segue_variable_seek_series(field, cursor, window, step);
}

int segue_example_read(const struct segue_spec *spec, struct segue_example *example, size_t i,
	struct segue_window *window, uint64_t steps, void *out)
{
	const struct segue_field *field = &spec->sequences[i];
	struct segue_cursor *cursor = &example->cursors[i];

	return is_plain(spec) ? segue_series_read(field, cursor, window, steps, out)
			      : segue_steps_read(field, cursor, window, steps, out);
}

int segue_example_read_variable(const struct segue_spec *spec, struct segue_example *example,
	size_t i, struct segue_window *window, uint64_t steps, int64_t *offsets,
	struct segue_sink *sink)
{
	const struct segue_field *field = &spec->sequences[i];
	struct segue_cursor *cursor = &example->cursors[i];

	return is_plain(spec)
		       ? segue_variable_read_series(field, cursor, window, steps, offsets, sink)
		       : segue_variable_read(field, cursor, window, steps, offsets, sink);
}

int segue_example_context_variable(const struct segue_spec *spec,
	const struct segue_example *example, size_t i, struct segue_window *window,
	int64_t *offsets, struct segue_sink *sink)
{
	return segue_variable_read_context(
		&spec->contexts[i], context_cursor(spec, example, i), window, offsets, sink);
}

/* ---- What a record holds --------------------------------------------------------------------- */

enum { IN_CONTEXT = 1, IN_LISTS = 2 };

/* Found by going through the record again. */
struct contents {
	const struct segue_spec *spec;
	uint8_t *where;     /* per declared sequence feature, then context feature: IN_... */
	char text[2][1024]; /* names and kinds: of the context, of the lists */
	size_t used[2], count[2];
	struct wrong {
		char text[512];
		size_t used, count;
	} undeclared, missing; /* names */
};

static void add_wrong(struct wrong *wrong, const char *what, const char *name)
{
	if (wrong->used < sizeof(wrong->text))
		wrong->used += (size_t)snprintf(wrong->text + wrong->used,
			sizeof(wrong->text) - wrong->used, "%s%s'%s'", wrong->count ? ", " : "",
			what, name);
	wrong->count++;
}

/*
 * The kind of a context feature, or of the first step of a list; it may be of any size, and is not
 * taken into memory.
 */
static int find_kind(struct segue_piece value, uint64_t map, enum segue_kind *kind)
{
	struct segue_piece inner;
	uint64_t number = 0;
	int rc = 0;

	*kind = SEGUE_KIND_NONE;
	while (!rc && map == FEATURE_LISTS && number != 1) {
		if (value.at == value.end)
			return 0;
		rc = segue_piece_take_message(&value, 1, &number, &inner);
		if (!rc && number == 1)
			value = inner;
	}
	while (!rc && value.at < value.end) {
		rc = segue_piece_take_message(&value, SEGUE_KIND_INT64, &number, &inner);
		if (!rc && number <= SEGUE_KIND_INT64)
			*kind = (enum segue_kind)number;
	}
	return rc;
}

static void note_declared(struct contents *contents, uint64_t map, const struct name *name)
{
	const struct segue_spec *spec = contents->spec;
	uint8_t flag = map == CONTEXT ? IN_CONTEXT : IN_LISTS;
	bool declared = map == CONTEXT && names_key(spec, name);
	char shown[SEGUE_NAME_MAX + 4];

	for (size_t i = 0; i < spec->sequence_count; i++) {
		if (!name_is(name, spec->sequences[i].name))
			continue;
		contents->where[i] |= flag;
		declared |= map != CONTEXT || is_plain(spec);
	}
	for (size_t i = 0; i < spec->context_count; i++) {
		if (!name_is(name, spec->contexts[i].name))
			continue;
		contents->where[spec->sequence_count + i] |= flag;
		declared |= map == CONTEXT;
	}
	if (!declared && !spec->source.tfrecord.allow_surplus)
		add_wrong(&contents->undeclared,
			map == CONTEXT && !is_plain(spec) ? "context " : "",
			printable(name, shown));
}

static void note_missing(struct contents *contents)
{
	const struct segue_spec *spec = contents->spec;

	for (size_t i = 0; i < spec->sequence_count; i++)
		if (!contents->where[i])
			add_wrong(&contents->missing, "", spec->sequences[i].name);
	for (size_t i = 0; i < spec->context_count; i++)
		if (!contents->where[spec->sequence_count + i])
			add_wrong(&contents->missing, "context ", spec->contexts[i].name);
}

/* All names that are wrong, where the first of them is not the only one. */
static int add_names(const struct contents *contents, int rc)
{
	const struct wrong *undeclared = &contents->undeclared, *missing = &contents->missing;
	char detail[4096];

	if (undeclared->count + missing->count < 2)
		return rc;
	snprintf(detail, sizeof(detail), "%s", segue_error_detail());
	return segue_fail(rc, "%s. In all, not declared: %s; missing: %s", detail,
		undeclared->count ? undeclared->text : "none",
		missing->count ? missing->text : "none");
}

static int note_entry(void *arg, uint64_t map, const struct name *name, struct segue_piece *value)
{
	struct contents *contents = arg;
	size_t m = map - 1, *used = &contents->used[m];
	char shown[SEGUE_NAME_MAX + 4];
	enum segue_kind kind;

	int rc = find_kind(*value, map, &kind);
	if (rc && rc != SEGUE_EDATA) /* which is no news */
		return rc;
	note_declared(contents, map, name);
	if (*used < sizeof(contents->text[m]))
		*used += (size_t)snprintf(contents->text[m] + *used,
			sizeof(contents->text[m]) - *used, "%s%s (%s)",
			contents->count[m] ? ", " : "", printable(name, shown),
			kind ? segue_kind_name(kind) : "no values");
	contents->count[m]++;
	return 0;
}

/* The same of a record that should be a plain Example. */
static int explain_plain(const struct contents *contents)
{
	if (!contents->count[FEATURE_LISTS - 1])
		return 0;
	return segue_fail(SEGUE_EMISFIT,
		"the record is a tf.train.SequenceExample, with %s in its feature_lists, and no "
		"plain tf.train.Example: leave out record=\"example\" of TFRecord(...)",
		contents->text[FEATURE_LISTS - 1]);
}

/* What the contents tell better than the first thing that did not fit; 0: nothing. */
static int explain_place(const struct contents *contents)
{
	const struct segue_spec *spec = contents->spec;

	if (is_plain(spec))
		return explain_plain(contents);
	if (!contents->count[FEATURE_LISTS - 1] && contents->count[CONTEXT - 1])
		return segue_fail(SEGUE_EMISFIT,
			"all features of the record, %s, lie in its context, as those of a "
			"tf.train.Example do: if it is one, give TFRecord(..., "
			"record=\"example\"); sequence features of a tf.train.SequenceExample are "
			"its feature_lists",
			contents->text[CONTEXT - 1]);
	for (size_t i = 0; i < spec->sequence_count; i++)
		if (contents->where[i] == IN_CONTEXT)
			return segue_fail(SEGUE_EMISFIT,
				"'%s' is in the record's context, and was declared as a sequence "
				"feature; declare it as context",
				spec->sequences[i].name);
	for (size_t i = 0; i < spec->context_count; i++)
		if (contents->where[spec->sequence_count + i] == IN_LISTS)
			return segue_fail(SEGUE_EMISFIT,
				"'%s' is a sequence feature of the record, and was declared as "
				"context; declare it as a sequence feature",
				spec->contexts[i].name);
	return 0;
}

static int fail_holding(const struct contents *contents, const char *detail)
{
	const char *context = contents->count[0] ? contents->text[0] : "none";

	if (is_plain(contents->spec))
		return segue_fail(SEGUE_EMISFIT, "%s; the record holds: %s", detail, context);
	return segue_fail(SEGUE_EMISFIT, "%s; the record holds: context %s; sequences %s", detail,
		context, contents->count[1] ? contents->text[1] : "none");
}

int segue_example_explain(const struct segue_spec *spec, struct segue_window *window)
{
	struct contents contents = {.spec = spec};
	char detail[1024];

	snprintf(detail, sizeof(detail), "%s", segue_error_detail());
	contents.where = calloc(spec->sequence_count + spec->context_count + 1, 1);
	if (!contents.where)
		return segue_fail(SEGUE_ENOMEM, "no memory for a record's features");
	int rc = walk(window, note_entry, &contents);
	if (!rc)
		rc = explain_place(&contents);
	if (!rc || rc == SEGUE_EDATA) { /* what else is in it is no news */
		note_missing(&contents);
		rc = fail_holding(&contents, detail);
		rc = add_names(&contents, rc);
	}
	free(contents.where);
	return rc;
}
