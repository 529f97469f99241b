/*
 * A stream's spec put together call by call, copied, freed; what follows from its numbers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "core/error.h"
#include "core/sized.h"
#include "core/spec.h"

static int fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for the spec of a stream");
}

static int check_there(const void *spec)
{
	return spec ? 0 : segue_fail(SEGUE_EINVAL, "spec is missing (NULL)");
}

/* ---- Beginning and end ---- */

int segue_spec_create(const char *name, struct segue_spec **out)
{
	struct segue_spec *spec;
	int rc = name ? segue_name_check("name", name, false) : 0;

	if (rc)
		return rc;
	spec = calloc(1, sizeof(*spec));
	if (!spec)
		return fail_memory();
	segue_options_init(segue_spec_options, spec);
	rc = segue_text_copy(name, &spec->name);
	if (rc)
		segue_spec_destroy(spec);
	else
		*out = spec;
	return rc;
}

static void destroy_fields(struct segue_field *fields, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(fields[i].name);
	free(fields);
}

void segue_spec_destroy(struct segue_spec *spec)
{
	if (!spec)
		return;
	segue_options_finish(segue_spec_options, spec);
	segue_source_finish(&spec->source);
	for (size_t i = 0; spec->init && i < spec->state_count; i++)
		free(spec->init[i]);
	free(spec->init);
	destroy_fields(spec->sequences, spec->sequence_count);
	destroy_fields(spec->contexts, spec->context_count);
	destroy_fields(spec->states, spec->state_count);
	free(spec->init_hash);
	free(spec->name);
	free(spec);
}

/* ---- Features and states ---- */

/* Makes room for one more at the end of an array; on failure it is as before. */
static int grow(void *array, size_t count, size_t size)
{
	void *old, *more;

	memcpy(&old, array, sizeof(old)); /* a pointer, of whichever type */
	more = reallocarray(old, count + 1, size);
	if (!more)
		return fail_memory();
	memcpy(array, &more, sizeof(more));
	memset((char *)more + count * size, 0, size);
	return 0;
}

/* Adds a field to the list, a state or a feature, checked; it can be taken off again, being the
 * last. */
static int add_field(struct segue_spec *spec, enum segue_field_list list,
	const struct segue_feature *feature, const struct segue_state *state,
	struct segue_field **fields, size_t *count)
{
	struct segue_field *field;
	int rc = grow(fields, *count, sizeof(**fields));

	if (rc)
		return rc;
	field = &(*fields)[*count];
	field->dtype = feature->dtype;
	field->rank = feature->rank;
	field->form = feature->form;
	if (state) {
		field->from_data = state->init_from_data;
		field->policy = (struct segue_state_policy){state->policy, state->probability};
	}
	memcpy(field->dims, feature->dims, sizeof(field->dims));
	rc = segue_text_copy(feature->name, &field->name);
	if (rc)
		return rc;
	++*count;
	rc = segue_spec_check_last(spec, list);
	if (rc)
		free((*fields)[--*count].name);
	return rc;
}

int segue_spec_add_sequence(struct segue_spec *spec, const struct segue_feature *given)
{
	struct segue_feature feature;
	int rc = check_there(spec);

	if (!rc)
		rc = segue_sized_take("segue_feature", given, sizeof(feature), &feature);
	return rc ? rc
		  : add_field(spec, SEGUE_FIELD_SEQUENCE, &feature, NULL, &spec->sequences,
			    &spec->sequence_count);
}

int segue_spec_add_context(struct segue_spec *spec, const struct segue_feature *given)
{
	struct segue_feature feature;
	int rc = check_there(spec);

	if (!rc)
		rc = segue_sized_take("segue_feature", given, sizeof(feature), &feature);
	return rc ? rc
		  : add_field(spec, SEGUE_FIELD_CONTEXT, &feature, NULL, &spec->contexts,
			    &spec->context_count);
}

/* Explicit zeros and no initial value are the same value, so they have the same hash. */
void segue_init_hash(const void *init, uint64_t size, uint64_t hash[2])
{
	static const uint8_t zeros[4096];
	struct segue_digest digest;

	segue_digest_init(&digest);
	for (uint64_t done = 0; done < size;) {
		uint64_t left = size - done;
		size_t part = left < sizeof(zeros) ? (size_t)left : sizeof(zeros);

		segue_digest_bytes(&digest, init ? (const uint8_t *)init + done : zeros, part);
		done += part;
	}
	segue_digest_finish(&digest, hash);
}

static int copy_init(const void *init, uint64_t size, void **out)
{
	if (!init)
		return 0;
	*out = malloc(size);
	if (!*out)
		return fail_memory();
	memcpy(*out, init, size);
	return 0;
}

int segue_spec_add_state(struct segue_spec *spec, const struct segue_state *given)
{
	struct segue_state state;
	int rc = check_there(spec);

	if (!rc)
		rc = segue_sized_take("segue_state", given, sizeof(state), &state);
	if (!rc && state.init && state.init_from_data)
		rc = segue_fail(SEGUE_EINVAL,
			"states[%zu] \"%s\": init is given, and init_from_data too: give one of "
			"them",
			spec->state_count, state.name ? state.name : "");
	if (!rc)
		rc = grow(&spec->init_hash, spec->state_count, sizeof(*spec->init_hash));
	if (!rc)
		rc = grow(&spec->init, spec->state_count, sizeof(*spec->init));
	if (rc)
		return rc;
	struct segue_feature feature = {
		.name = state.name, .dtype = state.dtype, .rank = state.rank};
	memcpy(feature.dims, state.dims, sizeof(feature.dims));
	rc = add_field(
		spec, SEGUE_FIELD_STATE, &feature, &state, &spec->states, &spec->state_count);
	if (rc)
		return rc;
	size_t last = spec->state_count - 1;
	rc = copy_init(state.init, spec->states[last].size, &spec->init[last]);
	if (rc) {
		free(spec->states[last].name);
		spec->state_count--;
		return rc;
	}
	segue_init_hash(state.init, spec->states[last].size, spec->init_hash[last]);
	return 0;
}

int segue_spec_set_init(struct segue_spec *spec, const char *name, const void *init)
{
	size_t i = 0;
	void *copy = NULL;
	int rc = check_there(spec);

	if (rc)
		return rc;
	while (i < spec->state_count && strcmp(spec->states[i].name, name ? name : "") != 0)
		i++;
	if (i == spec->state_count)
		return segue_fail(SEGUE_EINVAL, "there is no state \"%s\"", name ? name : "");
	if (spec->states[i].from_data)
		return segue_fail(SEGUE_EINVAL,
			"states[%zu] \"%s\": init is given, and init_from_data too: give one of "
			"them",
			i, name);
	if (!spec->init)
		spec->init = calloc(spec->state_count, sizeof(*spec->init));
	rc = spec->init ? copy_init(init, spec->states[i].size, &copy) : fail_memory();
	if (rc)
		return rc;
	free(spec->init[i]);
	spec->init[i] = copy;
	segue_init_hash(init, spec->states[i].size, spec->init_hash[i]);
	return 0;
}

bool segue_spec_wants_init(const struct segue_spec *spec, size_t i)
{
	uint64_t zeros[2];

	segue_init_hash(NULL, spec->states[i].size, zeros);
	return !spec->states[i].from_data && !(spec->init && spec->init[i]) &&
	       memcmp(zeros, spec->init_hash[i], sizeof(zeros)) != 0;
}

/* ---- Source and options ---- */

int segue_spec_set_source(struct segue_spec *spec, enum segue_source_kind kind)
{
	struct segue_spec_source source;
	int rc = check_there(spec);

	if (!rc)
		rc = segue_source_init(kind, &source);
	if (rc)
		return rc;
	segue_source_finish(&spec->source);
	spec->source = source;
	return 0;
}

int segue_spec_add_path(struct segue_spec *spec, const char *path)
{
	int rc = check_there(spec);

	return rc ? rc : segue_source_add_path(&spec->source, path);
}

int segue_spec_add_part(struct segue_spec *spec, const struct segue_mix_part *given)
{
	struct segue_mix_part part;
	int rc = check_there(spec);

	if (!rc)
		rc = segue_sized_take("segue_mix_part", given, sizeof(part), &part);
	return rc ? rc : segue_source_add_part(&spec->source, &part);
}

/* Where an option is set. */
struct place {
	const struct segue_option *option;
	char within[40]; /* in errors */
	void *of;
};

static int find_place(struct segue_spec *spec, enum segue_spec_option option, struct place *out)
{
	struct segue_spec_source *source;
	int rc = check_there(spec);

	if (rc)
		return rc;
	*out = (struct place){
		.option = segue_option_find(segue_spec_options, option), .within = "", .of = spec};
	if (out->option)
		return 0;
	rc = segue_source_last(&spec->source, &source);
	if (rc)
		return rc;
	if (source == &spec->source)
		snprintf(out->within, sizeof(out->within), "source.");
	else
		snprintf(out->within, sizeof(out->within), "source.parts[%zu].",
			spec->source.mix.count - 1);
	out->of = source;
	return segue_source_option(source, option, &out->option);
}

int segue_spec_set(struct segue_spec *spec, enum segue_spec_option option, uint64_t value)
{
	struct place place;
	int rc = find_place(spec, option, &place);

	return rc ? rc : segue_option_set(place.option, place.within, place.of, value);
}

int segue_spec_set_text(struct segue_spec *spec, enum segue_spec_option option, const char *text)
{
	struct place place;
	int rc = find_place(spec, option, &place);

	return rc ? rc : segue_option_set_text(place.option, place.within, place.of, text);
}

int segue_spec_set_boundaries(struct segue_spec *spec, const uint64_t *lengths, size_t count)
{
	struct segue_boundaries boundaries = {.count = 0};
	int rc = check_there(spec);

	if (!rc)
		rc = segue_range_check(
			"the number of bucket_boundaries", count, 0, SEGUE_BOUNDARIES_MAX);
	if (rc)
		return rc;
	boundaries.count = (uint32_t)count;
	if (count > 0)
		memcpy(boundaries.length, lengths, count * sizeof(*lengths));
	rc = segue_boundaries_check(&boundaries);
	if (!rc)
		spec->boundaries = boundaries;
	return rc;
}

/* ---- Copying ---- */

static int copy_fields(
	const struct segue_field *from, size_t count, struct segue_field **out, size_t *out_count)
{
	if (count == 0)
		return 0;
	*out = calloc(count, sizeof(**out));
	if (!*out)
		return fail_memory();
	for (; *out_count < count; ++*out_count) {
		struct segue_field *to = &(*out)[*out_count];

		*to = from[*out_count];
		to->name = NULL;
		int rc = segue_text_copy(from[*out_count].name, &to->name);
		if (rc)
			return rc;
	}
	return 0;
}

static int copy_inits(const struct segue_spec *from, struct segue_spec *to)
{
	int rc = 0;

	to->init_hash = calloc(from->state_count + 1, sizeof(*to->init_hash));
	to->init = calloc(from->state_count + 1, sizeof(*to->init));
	if (!to->init_hash || !to->init)
		return fail_memory();
	if (from->state_count)
		memcpy(to->init_hash, from->init_hash, from->state_count * sizeof(*to->init_hash));
	for (size_t i = 0; !rc && from->init && i < from->state_count; i++)
		rc = copy_init(from->init[i], from->states[i].size, &to->init[i]);
	return rc;
}

static int copy_owned(const struct segue_spec *from, struct segue_spec *to)
{
	int rc;

	if ((rc = segue_options_copy(segue_spec_options, from, to)) ||
		(rc = segue_text_copy(from->name, &to->name)) ||
		(rc = segue_source_copy(&from->source, &to->source)) ||
		(rc = copy_fields(from->sequences, from->sequence_count, &to->sequences,
			 &to->sequence_count)) ||
		(rc = copy_fields(
			 from->contexts, from->context_count, &to->contexts, &to->context_count)) ||
		(rc = copy_fields(from->states, from->state_count, &to->states, &to->state_count)))
		return rc;
	return copy_inits(from, to);
}

int segue_spec_copy(const struct segue_spec *spec, struct segue_spec **out)
{
	struct segue_spec *copy = malloc(sizeof(*copy));

	if (!copy)
		return fail_memory();
	*copy = *spec;
	copy->name = NULL;
	copy->source = (struct segue_spec_source){.kind = 0};
	copy->sequences = copy->contexts = copy->states = NULL;
	copy->init_hash = NULL;
	copy->init = NULL;
	copy->sequence_count = copy->context_count = copy->state_count = 0;
	int rc = copy_owned(spec, copy);
	if (rc) {
		segue_spec_destroy(copy);
		return rc;
	}
	*out = copy;
	return 0;
}

/* ---- What follows from it ---- */
