/* segue peek: the report on files of one kind, and the Python that opens them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/peek.h"
#include "cli/python.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/options.h"

#define BARS 8 /* of the histogram, if lengths are alike; else one for each power of two */

/* ---- Features ---- */

/* Bits; steps without values are of none. */
static unsigned kinds_of(const struct segue_peek_feature *feature)
{
	return feature->kinds & ~(1u << SEGUE_PEEK_NONE);
}

static enum segue_dtype dtype_of(const struct segue_peek_feature *feature)
{
	if (feature->dtype)
		return feature->dtype;
	if (kinds_of(feature) == 1u << SEGUE_PEEK_FLOAT)
		return SEGUE_FLOAT32;
	return kinds_of(feature) == 1u << SEGUE_PEEK_INT64 ? SEGUE_INT64 : 0;
}

/* Of TFRecord, ragged where numbers of values differ. */
static enum segue_form form_of(const struct segue_peek_feature *feature)
{
	if (feature->dtype)
		return feature->form;
	if (kinds_of(feature) == 1u << SEGUE_PEEK_BYTES)
		return SEGUE_FORM_BYTES;
	return feature->least == feature->most ? SEGUE_FORM_DENSE : SEGUE_FORM_RAGGED;
}

static uint32_t rank_of(const struct segue_peek_feature *feature)
{
	if (feature->dtype)
		return feature->rank;
	return form_of(feature) == SEGUE_FORM_DENSE && feature->most > 1;
}

static uint64_t dim_of(const struct segue_peek_feature *feature, uint32_t i)
{
	return feature->dtype ? feature->dims[i] : feature->most;
}

static const char *type_of(const struct segue_peek_feature *feature)
{
	if (form_of(feature) == SEGUE_FORM_BYTES)
		return segue_form_name(SEGUE_FORM_BYTES);
	if (dtype_of(feature))
		return segue_dtype_name(dtype_of(feature));
	return kinds_of(feature) ? "several" : "empty";
}

/* Why a stream cannot have it as it is, into `why`; "": it can. */
static const char *fault_of(const struct segue_peek_found *found,
	const struct segue_peek_feature *feature, char why[128])
{
	const char *each = feature->place == SEGUE_SEQFILE_SEQUENCE ? "step" : "record";
	bool is_text = form_of(feature) == SEGUE_FORM_BYTES;

	why[0] = '\0';
	if (feature->dtype) {
		if (feature->records != found->heads)
			snprintf(why, 128, "alike in %" PRIu64 " of %" PRIu64 " files",
				feature->records, found->heads);
		return why;
	}
	if (memchr(feature->name, 0, feature->name_size) ||
		segue_name_check("the name", feature->name, false))
		snprintf(why, 128, "its name cannot be that of a feature");
	else if (feature->most == 0)
		snprintf(why, 128, "no values");
	else if (!dtype_of(feature) && !is_text)
		snprintf(why, 128, "values of several types");
	else if (feature->records != found->records)
		snprintf(why, 128, "in %" PRIu64 " of %" PRIu64 " records", feature->records,
			found->records);
	else if (is_text && (feature->least != 1 || feature->most != 1))
		snprintf(why, 128, "%" PRIu64 " to %" PRIu64 " bytes values a %s, not one",
			feature->least, feature->most, each);
	return why;
}

static void put_feature(struct segue_json *json, const struct segue_peek_found *found,
	const struct segue_peek_feature *feature)
{
	char why[128];

	segue_json_begin(json, NULL, '{');
	segue_json_bytes(json, "name", feature->name, feature->name_size);
	segue_json_string(json, "place", segue_seqfile_place_name(feature->place));
	segue_json_string(json, "dtype", type_of(feature));
	if (form_of(feature) != SEGUE_FORM_DENSE)
		segue_json_string(json, "form", segue_form_name(form_of(feature)));
	segue_json_begin(json, "shape", '[');
	for (uint32_t i = 0; i < rank_of(feature); i++)
		segue_json_unsigned(json, NULL, dim_of(feature, i));
	segue_json_end(json, ']');
	if (!feature->dtype)
		segue_json_unsigned(json, "bytes", feature->bytes);
	segue_json_string(json, "fault", fault_of(found, feature, why));
	segue_json_end(json, '}');
}

/* ---- Features of a tf.train.Example ---- */

/* Whether a feature that all records have may be one of steps: by its numbers of values. */
static bool may_have_steps(
	const struct segue_peek_found *found, const struct segue_peek_feature *feature, bool differ)
{
	if (feature->records != found->records || feature->counts.records != found->records ||
		feature->most < 2)
		return false;
	return !differ || feature->least != feature->most;
}

/* Several bytes values cannot be but those of steps, one each; of others, the fewest tell. */
static bool tells_more(const struct segue_peek_feature *a, const struct segue_peek_feature *b)
{
	bool text = form_of(a) == SEGUE_FORM_BYTES;

	return text == (form_of(b) == SEGUE_FORM_BYTES) ? a->values < b->values : text;
}

/* The one whose steps have one value. NULL: there is none. */
static const struct segue_peek_feature *find_base(const struct segue_peek_found *found, bool differ)
{
	const struct segue_peek_feature *base = NULL;

	for (size_t i = 0; i < found->features; i++) {
		const struct segue_peek_feature *feature = &found->feature[i];

		if (may_have_steps(found, feature, differ) && (!base || tells_more(feature, base)))
			base = feature;
	}
	return base;
}

/* Of each record as many steps as it has values of the feature. */
static void give_steps(struct segue_peek_found *found, const struct segue_peek_feature *base)
{
	size_t i = 0;

	for (size_t f = 0; f < found->files; f++)
		for (uint64_t k = 0; k < found->file[f].records; k++, i++) {
			found->length[i] = segue_peek_counted(&base->counts, i);
			found->file[f].steps += found->length[i];
		}
}

/*
 * All features lie in one map, and nothing in it says which have steps. Those whose numbers of
 * values differ from record to record probably have, and where none do, those of several values;
 * if they are multiples of one of them.
 */
static void guess_steps(struct segue_peek_found *found)
{
	const struct segue_peek_feature *first = find_base(found, true);
	bool differ = first;

	if (!differ)
		first = find_base(found, false);
	if (!first)
		return;
	const struct segue_peek_feature base = *first; /* which will change, too */
	found->guessed = true;
	give_steps(found, &base);
	for (size_t i = 0; i < found->features; i++) {
		struct segue_peek_feature *feature = &found->feature[i];
		uint64_t each = base.values ? feature->values / base.values : 0;

		if (!may_have_steps(found, feature, differ) || feature->most != each * base.most ||
			feature->least != each * base.least ||
			feature->values != each * base.values)
			continue;
		feature->place = SEGUE_SEQFILE_SEQUENCE;
		feature->least = feature->most = each;
	}
}

/* ---- Lengths ---- */

static int compare(const void *a, const void *b)
{
	const uint64_t *one = a, *other = b;

	return (*one > *other) - (*one < *other);
}

static void put_bar(struct segue_json *json, const struct segue_peek_found *found, size_t *at,
	uint64_t from, uint64_t to)
{
	size_t begin = *at;

	while (*at < found->lengths && found->length[*at] <= to)
		++*at;
	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "from", from);
	segue_json_unsigned(json, "to", to);
	segue_json_unsigned(json, "sequences", *at - begin);
	segue_json_end(json, '}');
}

/* Of sorted lengths, at least one. */
static void put_histogram(struct segue_json *json, const struct segue_peek_found *found)
{
	uint64_t least = found->length[0], most = found->length[found->lengths - 1];
	size_t at = 0;

	segue_json_begin(json, "histogram", '[');
	if (most / (least + 1) < BARS) {
		uint64_t width = (most - least) / BARS + 1;

		for (uint64_t from = least; from <= most; from += width) {
			put_bar(json, found, &at, from, from + width - 1);
			if (most - from < width)
				break;
		}
	} else {
		for (uint64_t to = 1; at < found->lengths; to = 2 * to + 1)
			if (to >= least)
				put_bar(json, found, &at, to / 2 + (to > 1), to);
	}
	segue_json_end(json, ']');
}

static void put_lengths(struct segue_json *json, struct segue_peek_found *found)
{
	uint64_t total = 0;

	for (size_t i = 0; i < found->files; i++)
		total += found->file[i].steps;
	segue_json_begin(json, "steps", '{');
	segue_json_unsigned(json, "total", total);
	if (found->lengths > 0) {
		qsort(found->length, found->lengths, sizeof(*found->length), compare);
		segue_json_unsigned(json, "min", found->length[0]);
		segue_json_unsigned(json, "median", found->length[found->lengths / 2]);
		segue_json_unsigned(json, "max", found->length[found->lengths - 1]);
	}
	segue_json_end(json, '}');
	if (found->lengths > 0)
		put_histogram(json, found);
}

/* ---- Files ---- */

static bool put_files(struct segue_json *json, const struct segue_peek_found *found)
{
	bool all = true;

	segue_json_begin(json, "files", '[');
	for (size_t i = 0; i < found->files; i++) {
		const struct segue_peek_file *file = &found->file[i];

		all = all && file->all;
		segue_json_begin(json, NULL, '{');
		segue_json_bytes(json, "file", file->path, strlen(file->path));
		segue_json_string(json, "compression", file->packed ? file->packed : "none");
		segue_json_unsigned(json, "bytes", file->bytes);
		segue_json_unsigned(json, "sequences", file->records);
		segue_json_unsigned(json, "steps", file->steps);
		segue_json_bool(json, "all", file->all);
		segue_json_unsigned(json, "damaged", file->damaged);
		segue_json_bytes(json, "trouble", file->trouble ? file->trouble : "",
			file->trouble ? strlen(file->trouble) : 0);
		segue_json_begin(json, "keys", '[');
		for (size_t k = 0; k < file->keys; k++)
			segue_json_bytes(json, NULL, file->key[k], file->key_size[k]);
		segue_json_end(json, ']');
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
	return all;
}

static void put_notes(struct segue_json *json, const struct segue_peek_found *found)
{
	char note[256];

	segue_json_begin(json, "notes", '[');
	if (found->flat > 0) {
		snprintf(note, sizeof(note),
			"%" PRIu64 " of %" PRIu64 " records have no feature_lists: they are "
			"tf.train.Example (record=\"example\"; which features have steps is "
			"guessed from how many values they have), or empty",
			found->flat, found->records);
		segue_json_string(json, NULL, note);
	}
	if (found->sequences_differ > 0) {
		snprintf(note, sizeof(note),
			"in %" PRIu64 " of %" PRIu64 " records sequence features have different "
			"numbers of steps",
			found->sequences_differ, found->records);
		segue_json_string(json, NULL, note);
	}
	if (found->more_features)
		segue_json_string(json, NULL, "there are more features than are shown");
	segue_json_end(json, ']');
}

/* ---- Python ---- */

static void add_source(
	struct segue_python *text, const struct segue_peek_found *found, bool surplus)
{
	bool seqfiles = strcmp(found->kind, "files") == 0;
	const char **path = segue_cli_need(calloc(found->files, sizeof(*path)));

	segue_python_add(text, "    source=segue.%s(", seqfiles ? "Files" : "TFRecord");
	for (size_t i = 0; i < found->files; i++)
		path[i] = found->file[i].path;
	segue_python_add_paths(text, path, found->files);
	free(path);
	segue_python_add(text, "%s%s),\n", found->guessed ? ", record=\"example\"" : "",
		surplus && !seqfiles ? ", allow_surplus=True" : "");
}

/* Those of a place that a stream can have; false: one at least it cannot. */
static bool add_features(struct segue_python *text, const struct segue_peek_found *found,
	enum segue_seqfile_place place)
{
	static const char *const arguments[] = {"sequences", "context", "states"};
	bool all = true, any = false;
	char why[128];

	for (size_t i = 0; i < found->features; i++) {
		const struct segue_peek_feature *feature = &found->feature[i];

		if (feature->place != place)
			continue;
		if (*fault_of(found, feature, why)) {
			all = false;
			continue;
		}
		segue_python_add(text, any ? "        " : "    %s={\n        ", arguments[place]);
		segue_python_add_literal(text, feature->name, feature->name_size);
		segue_python_add(text, ": segue.%s(\"%s\"",
			place == SEGUE_SEQFILE_STATE ? "State" : "Feature", type_of(feature));
		if (form_of(feature) == SEGUE_FORM_RAGGED)
			segue_python_add(text, ", ragged=True");
		for (uint32_t k = 0; k < rank_of(feature); k++)
			segue_python_add(text, "%s%" PRIu64, k ? ", " : ", [", dim_of(feature, k));
		/* What the file has for each sequence, where zeros would be taken else. */
		segue_python_add(text, "%s%s),\n", rank_of(feature) ? "]" : "",
			place == SEGUE_SEQFILE_STATE ? ", init=\"data\"" : "");
		any = true;
	}
	segue_python_add(text, "%s", any ? "    },\n" : "");
	return all;
}

static bool has_sequence(const struct segue_peek_found *found)
{
	char why[128];

	for (size_t i = 0; i < found->features; i++)
		if (found->feature[i].place == SEGUE_SEQFILE_SEQUENCE &&
			!*fault_of(found, &found->feature[i], why))
			return true;
	return false;
}

/* A segment of half a sequence or more is no segment: the power of two up to half the median. */
static uint64_t unroll_for(const struct segue_peek_found *found)
{
	uint64_t median = found->lengths ? found->length[found->lengths / 2] : 1, unroll = 1;

	while (unroll < 64 && unroll * 4 <= median)
		unroll *= 2;
	return unroll;
}

/* After the lengths were sorted. */
static void put_python(struct segue_json *json, const struct segue_peek_found *found)
{
	struct segue_python text = {0}, features = {0};
	bool all = !found->more_features;

	if (found->lengths == 0 || !has_sequence(found)) {
		segue_json_null(json, "python");
		return;
	}
	for (unsigned place = 0; place <= SEGUE_SEQFILE_STATE; place++)
		all = add_features(&features, found, (enum segue_seqfile_place)place) && all;
	segue_python_add(&text,
		"import segue\n\nclient = segue.open(\"store\")\nstream = client.stream(\n"
		"    \"train\",\n");
	add_source(&text, found, !all);
	segue_python_add(&text, "%s    num_unroll=%" PRIu64 ",\n    batch_size=%d,\n)\n",
		features.bytes, unroll_for(found), found->lengths < 32 ? (int)found->lengths : 32);
	segue_json_bytes(json, "python", text.bytes, text.size);
	free(text.bytes);
	free(features.bytes);
}

void segue_peek_report(struct segue_json *json, struct segue_peek_found *found)
{
	bool all;

	if (found->records > 0 && found->flat == found->records)
		guess_steps(found);
	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "kind", found->kind);
	all = put_files(json, found);
	segue_json_unsigned(json, "sequences", found->lengths);
	segue_json_bool(json, "all", all);
	put_lengths(json, found);
	segue_json_begin(json, "features", '[');
	for (size_t i = 0; i < found->features; i++)
		put_feature(json, found, &found->feature[i]);
	segue_json_end(json, ']');
	put_notes(json, found);
	put_python(json, found);
	segue_json_end(json, '}');
}
