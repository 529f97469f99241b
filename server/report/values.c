/* Values that several reports have: dates, shapes, specs. */
#include "report/values.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "core/dtype.h"

void segue_report_put_date(struct segue_json *json, const char *name, int64_t unix_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	struct tm parts;
	char text[64];

	if (unix_ms > 0 && gmtime_r(&seconds, &parts) &&
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts))
		segue_json_string(json, name, text);
	else
		segue_json_null(json, name);
}

void segue_report_put_fingerprint(
	struct segue_json *json, const char *name, const uint64_t value[2])
{
	char text[40];

	snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, value[1], value[0]);
	segue_json_string(json, name, text);
}

/* ---- Specs ---- */

void segue_report_put_shape(struct segue_json *json, const struct segue_field *field)
{
	segue_json_begin(json, "shape", '[');
	for (uint32_t i = 0; i < field->rank; i++)
		segue_json_unsigned(json, NULL, field->dims[i]);
	segue_json_end(json, ']');
}

static void put_fields(
	struct segue_json *json, const char *name, const struct segue_field *fields, size_t count)
{
	char text[SEGUE_POLICY_TEXT];

	segue_json_begin(json, name, '[');
	for (size_t i = 0; i < count; i++) {
		segue_json_begin(json, NULL, '{');
		segue_json_string(json, "name", fields[i].name);
		segue_json_string(json, "dtype", segue_dtype_name(fields[i].dtype));
		segue_report_put_shape(json, &fields[i]);
		if (fields[i].form != SEGUE_FORM_DENSE)
			segue_json_string(json, "form", segue_form_name(fields[i].form));
		if (fields[i].from_data)
			segue_json_string(json, "init", "data");
		if (fields[i].policy.kind != SEGUE_POLICY_CARRY)
			segue_json_string(
				json, "policy", segue_policy_print(&fields[i].policy, text));
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
}

static void put_option(struct segue_json *json, const struct segue_option *option, const void *spec)
{
	if (option->none && segue_option_get(option, spec) == 0) {
		segue_json_null(json, option->name);
		return;
	}
	switch (option->kind) {
	case SEGUE_OPTION_FLAG:
		segue_json_bool(json, option->name, segue_option_get(option, spec));
		return;
	case SEGUE_OPTION_NUMBER:
		segue_json_unsigned(json, option->name, segue_option_get(option, spec));
		return;
	case SEGUE_OPTION_CHOICE:
		segue_json_string(
			json, option->name, option->choices[segue_option_get(option, spec)]);
		return;
	case SEGUE_OPTION_TEXT:
		if (segue_option_text(option, spec))
			segue_json_string(json, option->name, segue_option_text(option, spec));
		else
			segue_json_null(json, option->name);
	}
}

/* What is of a source itself: its kind, files, options; within an object. */
static void put_source_values(struct segue_json *json, const struct segue_spec_source *source)
{
	const struct segue_source_row *row = segue_source_row(source->kind);
	const struct segue_paths *paths = segue_source_paths(source);

	segue_json_string(json, "kind", row->name);
	if (paths) {
		segue_json_begin(json, "paths", '[');
		for (size_t i = 0; i < paths->count; i++)
			segue_json_string(json, NULL, paths->path[i]);
		segue_json_end(json, ']');
	}
	for (const struct segue_option *option = row->options; option->name; option++)
		put_option(json, option, source);
}

static void put_source(struct segue_json *json, const struct segue_spec_source *source)
{
	segue_json_begin(json, "source", '{');
	put_source_values(json, source);
	if (source->kind == SEGUE_SOURCE_MIX) {
		segue_json_begin(json, "parts", '[');
		for (size_t i = 0; i < source->mix.count; i++) {
			const struct segue_spec_part *part = &source->mix.part[i];

			segue_json_begin(json, NULL, '{');
			segue_json_string(json, "name", part->name);
			segue_json_unsigned(json, "weight", part->weight);
			if (part->epochs)
				segue_json_unsigned(json, "epochs", part->epochs);
			else
				segue_json_null(json, "epochs");
			put_source_values(json, &part->source);
			segue_json_end(json, '}');
		}
		segue_json_end(json, ']');
	}
	segue_json_end(json, '}');
}

void segue_report_put_spec(struct segue_json *json, const struct segue_spec *spec)
{
	segue_json_begin(json, "spec", '{');
	put_source(json, &spec->source);
	put_fields(json, "sequences", spec->sequences, spec->sequence_count);
	put_fields(json, "contexts", spec->contexts, spec->context_count);
	put_fields(json, "states", spec->states, spec->state_count);
	for (const struct segue_option *option = segue_spec_options; option->name; option++)
		put_option(json, option, spec);
	if (spec->boundaries.count == 0) {
		segue_json_null(json, "bucket_boundaries");
	} else {
		segue_json_begin(json, "bucket_boundaries", '[');
		for (uint32_t i = 0; i < spec->boundaries.count; i++)
			segue_json_unsigned(json, NULL, spec->boundaries.length[i]);
		segue_json_end(json, ']');
	}
	segue_json_end(json, '}');
}
