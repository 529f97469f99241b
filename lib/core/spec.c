/*
 * A stream's spec: copied, checked, hashed, compared.
 */
#include "core/spec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/differences.h"
#include "core/digest.h"
#include "core/dtype.h"
#include "core/error.h"

#define FIELD_SIZE_MAX ((uint64_t)1 << 32) /* bytes a step or a row */
#define HASH_VERSION   2

const struct segue_option segue_spec_options[] = {
#define ROW(name, type, asked, part, ...)                                                          \
	SEGUE_OPTION_ROW(struct segue_spec, name, struct segue_stream_spec, asked, #name, part,    \
		__VA_ARGS__),
	SEGUE_OPTIONS(ROW)
#undef ROW
		{.name = NULL}};

/* ---- Checking ---- */

/* Checks dtype and shape, and sets what follows from them. */
static int check_shape(const char *kind, size_t i, struct segue_field *field)
{
	uint64_t size = segue_dtype_size(field->dtype), elements = 1;

	if (size == 0)
		return segue_fail(SEGUE_EINVAL,
			"%s[%zu] \"%s\": dtype is %u, which is no dtype; 1 (%s) to %u (%s) are",
			kind, i, field->name, (unsigned)field->dtype, segue_dtype_name(1),
			(unsigned)segue_dtype_last(), segue_dtype_name(segue_dtype_last()));
	if (field->rank > SEGUE_RANK_MAX)
		return segue_fail(SEGUE_EINVAL,
			"%s[%zu] \"%s\": the shape has %" PRIu32
			" dimensions (in C: rank), at most %d are allowed",
			kind, i, field->name, field->rank, SEGUE_RANK_MAX);
	for (uint32_t d = 0; d < field->rank; d++) {
		if (field->dims[d] == 0)
			return segue_fail(SEGUE_EINVAL,
				"%s[%zu] \"%s\": shape[%" PRIu32
				"] (in C: dims) is 0, at least 1 is needed",
				kind, i, field->name, d);
		if (__builtin_mul_overflow(elements, field->dims[d], &elements) ||
			__builtin_mul_overflow(size, field->dims[d], &size) ||
			size > FIELD_SIZE_MAX)
			return segue_fail(SEGUE_EINVAL,
				"%s[%zu] \"%s\": the shape has more than %" PRIu64
				" bytes at shape[%" PRIu32 "] (in C: dims) = %" PRIu64,
				kind, i, field->name, FIELD_SIZE_MAX, d, field->dims[d]);
	}
	field->elements = elements;
	field->size = size;
	return 0;
}

static int check_twice(const char *kind, const struct segue_field *fields, size_t count,
	const char *other_kind, const struct segue_field *other, size_t i)
{
	for (size_t k = 0; k < count; k++)
		if (strcmp(fields[k].name, other->name) == 0)
			return segue_fail(SEGUE_EINVAL,
				"%s[%zu] and %s[%zu] have the same name \"%s\"", kind, k,
				other_kind, i, other->name);
	return 0;
}

static int check_form(const char *kind, size_t i, const struct segue_field *field)
{
	char what[SEGUE_NAME_MAX + 64];

	snprintf(what, sizeof(what), "%s[%zu] \"%s\"", kind, i, field->name);
	return segue_form_check(what, field->form, field->rank, field->dtype);
}

static int check_fields(const char *kind, struct segue_field *fields, size_t count)
{
	char what[64];
	int rc;

	for (size_t i = 0; i < count; i++) {
		snprintf(what, sizeof(what), "%s[%zu].name", kind, i);
		rc = segue_name_check(what, fields[i].name, false);
		if (rc)
			return rc;
		rc = check_shape(kind, i, &fields[i]);
		if (!rc)
			rc = check_form(kind, i, &fields[i]);
		if (rc)
			return rc;
		rc = check_twice(kind, fields, i, kind, &fields[i], i);
		if (rc)
			return rc;
	}
	return 0;
}

static int check_counts(size_t sequences, size_t contexts, size_t states)
{
	if (sequences == 0 || sequences > SEGUE_FEATURES_MAX)
		return segue_range_check("the number of sequences (in C: sequence_count)",
			sequences, 1, SEGUE_FEATURES_MAX);
	if (contexts > SEGUE_FEATURES_MAX - sequences)
		return segue_fail(SEGUE_EINVAL,
			"there are %zu sequences and %zu context (in C: sequence_count, "
			"context_count), together at most %d are allowed",
			sequences, contexts, SEGUE_FEATURES_MAX);
	return segue_range_check(
		"the number of states (in C: state_count)", states, 0, SEGUE_STATES_MAX);
}

static int check_features(struct segue_spec *spec)
{
	int rc = check_fields("sequences", spec->sequences, spec->sequence_count);

	if (!rc)
		rc = check_fields("context", spec->contexts, spec->context_count);
	if (!rc)
		rc = check_fields("states", spec->states, spec->state_count);
	for (size_t i = 0; !rc && i < spec->state_count; i++)
		if (spec->states[i].form != SEGUE_FORM_DENSE)
			rc = segue_fail(SEGUE_EINVAL, "%s: a state is dense, not ragged or bytes",
				spec->states[i].name);
	for (size_t i = 0; !rc && i < spec->context_count; i++)
		rc = check_twice("sequences", spec->sequences, spec->sequence_count, "context",
			&spec->contexts[i], i);
	return rc;
}

/* Only some kinds of sources have initial values of states. */
static int check_initial(const struct segue_spec *spec)
{
	for (size_t i = 0; i < spec->state_count; i++)
		if (spec->states[i].from_data && !segue_source_has_initial(&spec->source))
			return segue_fail(SEGUE_EINVAL,
				"states[%zu] \"%s\": its initial value is to come from the data "
				"(in C: init_from_data), which a source of kind %s does not have: "
				"write sequence files with it (segue.convert, segue.FileWriter), "
				"which segue.Files reads, or give one value for all",
				i, spec->states[i].name, segue_source_row(spec->source.kind)->name);
	return 0;
}

/* Only some kinds of sources have features that are not dense; no states are. */
static int check_variable(const struct segue_spec *spec, const char *kind,
	const struct segue_field *fields, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fields[i].form != SEGUE_FORM_DENSE && !segue_source_has_variable(&spec->source))
			return segue_fail(SEGUE_EINVAL,
				"%s[%zu] \"%s\" is %s, which a source of kind %s does not have: "
				"write sequence files with it (segue.convert, segue.FileWriter), "
				"which segue.Files reads",
				kind, i, fields[i].name, segue_form_name(fields[i].form),
				segue_source_row(spec->source.kind)->name);
	return 0;
}

/* ---- Arrays: the index has a column for each feature ---- */

static const struct segue_field *feature_at(const struct segue_spec *spec, size_t i)
{
	return i < spec->sequence_count ? &spec->sequences[i]
					: &spec->contexts[i - spec->sequence_count];
}

static struct segue_array_column column_at(const struct segue_spec *spec, size_t i)
{
	const struct segue_field *field = feature_at(spec, i);
	struct segue_array_column column = {
		.context = i >= spec->sequence_count, .rank = (uint8_t)field->rank};

	memcpy(column.dims, field->dims, field->rank * sizeof(field->dims[0]));
	return column;
}

/* Whether the arrays of a feature can be given as it. */
static int check_column(
	const struct segue_spec *spec, const struct segue_array_index *index, size_t i)
{
	const struct segue_field *field = feature_at(spec, i);
	struct segue_array_column column = column_at(spec, i);

	if (memcmp(&column, &index->column[i], sizeof(column)) != 0)
		return segue_fail(SEGUE_EINVAL,
			"feature '%s': its arrays have steps of another shape", field->name);
	for (uint32_t group = 0; group < index->groups; group++) {
		enum segue_dtype has = segue_array_index_place(index, group, (uint32_t)i)->dtype;

		if (!segue_dtype_widens(has, field->dtype))
			return segue_fail(SEGUE_EINVAL,
				"feature '%s': its array of group %" PRIu32
				" is %s, which as %s would lose values: declare %s, or convert it "
				"(segue.convert)",
				field->name, group, segue_dtype_name(has),
				segue_dtype_name(field->dtype), segue_dtype_name(has));
	}
	return 0;
}

static int check_index(const struct segue_spec *spec)
{
	struct segue_array_index **at = segue_source_index(&spec->source);
	size_t features = spec->sequence_count + spec->context_count;
	int rc = 0;

	if (!at || !*at)
		return 0;
	if ((*at)->columns != features || (*at)->files != segue_source_paths(&spec->source)->count)
		return segue_fail(SEGUE_EINVAL,
			"the index of arrays is of %" PRIu32 " features in %" PRIu32
			" files, the stream has %zu in %zu",
			(*at)->columns, (*at)->files, features,
			segue_source_paths(&spec->source)->count);
	for (size_t i = 0; !rc && i < features; i++)
		rc = check_column(spec, *at, i);
	return rc;
}

static int take_index(const struct segue_stream_source *asked, struct segue_spec *spec)
{
	struct segue_array_index **at = segue_source_index(&spec->source);
	size_t features = spec->sequence_count + spec->context_count;
	struct segue_array_column columns[SEGUE_FEATURES_MAX];

	if (!at)
		return 0;
	for (size_t i = 0; i < features; i++) {
		if (feature_at(spec, i)->rank > SEGUE_RANK_MAX)
			return 0; /* the check says so */
		columns[i] = column_at(spec, i);
	}
	return segue_array_index_pack(&asked->arrays, columns, (uint32_t)features, at);
}

/* Fields that are each right and do not go together. */
static int check_together(const struct segue_spec *spec)
{
	if (spec->keep_final && !spec->persist)
		return segue_fail(SEGUE_EINVAL,
			"keep_final wants persist (in C: no volatile_): there is no store to keep "
			"final states in");
	if (spec->source.kind == SEGUE_SOURCE_MIX && (spec->epochs != 1 || spec->first_epoch != 0))
		return segue_fail(SEGUE_EINVAL,
			"epochs is %" PRIu64 " and first_epoch %" PRIu64
			": passes over a mix are those over its parts, which have epochs of their "
			"own; the stream's are 1, from 0 on",
			spec->epochs, spec->first_epoch);
	if (spec->epochs != 0 && spec->epochs <= spec->first_epoch)
		return segue_fail(SEGUE_EINVAL,
			"epochs is %" PRIu64 " and first_epoch %" PRIu64
			": epochs counts from 0, also where the stream begins later, and must be "
			"more than first_epoch",
			spec->epochs, spec->first_epoch);
	return segue_source_check_live(&spec->source,
		(spec->depth + 2) * (uint64_t)spec->batch_size,
		spec->persist && !spec->shuffle && spec->epochs == 1 && !spec->first_epoch);
}

int segue_spec_check(struct segue_spec *spec)
{
	int rc = segue_name_check("name", spec->name, false);

	if (!rc)
		rc = check_counts(spec->sequence_count, spec->context_count, spec->state_count);
	if (!rc)
		rc = segue_source_check(&spec->source);
	if (!rc)
		rc = check_features(spec);
	if (!rc)
		rc = segue_options_check(segue_spec_options, "", spec);
	if (!rc)
		rc = check_initial(spec);
	if (!rc)
		rc = check_variable(spec, "sequences", spec->sequences, spec->sequence_count);
	if (!rc)
		rc = check_variable(spec, "context", spec->contexts, spec->context_count);
	if (!rc)
		rc = check_together(spec);
	return rc ? rc : check_index(spec);
}

/* ---- Copying ---- */

static int fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for the spec of a stream");
}

/* Both begin with name, dtype and shape. */
_Static_assert(offsetof(struct segue_feature, dims) == offsetof(struct segue_state, dims), "dims");

/* From features or states, `stride` bytes apart. */
static int take_fields(
	const void *from, size_t stride, size_t count, struct segue_field **out, size_t *out_count)
{
	int rc = 0;

	if (count == 0)
		return 0;
	*out = calloc(count, sizeof(**out));
	if (!*out)
		return fail_memory();
	*out_count = count;
	for (size_t i = 0; !rc && i < count; i++) {
		const struct segue_feature *feature =
			(const void *)((const char *)from + i * stride);
		struct segue_field *to = &(*out)[i];

		to->dtype = feature->dtype;
		to->rank = feature->rank;
		memcpy(to->dims, feature->dims, sizeof(to->dims));
		rc = segue_text_copy(feature->name, &to->name);
	}
	return rc;
}

/* Arrays that are announced and not there would be read by the copy. */
static int check_arrays(const struct segue_stream_spec *spec)
{
	const struct {
		const char *what;
		const void *array;
		size_t count;
	} arrays[] = {
		{"sequences", spec->sequences, spec->sequence_count},
		{"contexts", spec->contexts, spec->context_count},
		{"states", spec->states, spec->state_count},
	};

	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
		if (arrays[i].count > 0 && !arrays[i].array)
			return segue_fail(SEGUE_EINVAL, "%s is NULL and should have %zu entries",
				arrays[i].what, arrays[i].count);
	return check_counts(spec->sequence_count, spec->context_count, spec->state_count);
}

static int take_features(
	const struct segue_feature *from, size_t count, struct segue_field **out, size_t *out_count)
{
	int rc = take_fields(from, sizeof(*from), count, out, out_count);

	for (size_t i = 0; !rc && i < count; i++)
		(*out)[i].form = from[i].form;
	return rc;
}

static int take_states(const struct segue_stream_spec *from, struct segue_spec *to)
{
	int rc = take_fields(from->states, sizeof(*from->states), from->state_count, &to->states,
		&to->state_count);

	for (size_t i = 0; !rc && i < to->state_count; i++) {
		to->states[i].from_data = from->states[i].init_from_data;
		if (from->states[i].init_from_data && from->states[i].init)
			return segue_fail(SEGUE_EINVAL,
				"states[%zu] \"%s\": init is given, and init_from_data too: give "
				"one of them",
				i, to->states[i].name);
	}
	return rc;
}

static int take_all(const struct segue_stream_spec *from, struct segue_spec *to)
{
	int rc = segue_text_copy(from->name, &to->name);

	if (!rc)
		rc = segue_source_take(&from->source, &to->source);
	if (!rc)
		rc = take_features(
			from->sequences, from->sequence_count, &to->sequences, &to->sequence_count);
	if (!rc)
		rc = take_features(
			from->contexts, from->context_count, &to->contexts, &to->context_count);
	if (!rc)
		rc = take_states(from, to);
	if (!rc)
		rc = segue_options_take(segue_spec_options, from, to);
	return rc ? rc : take_index(&from->source, to);
}

/* Explicit zeros and no initial value are the same value, so they have the same hash. */
static void hash_init(const void *init, uint64_t size, uint64_t hash[2])
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

int segue_spec_create(const struct segue_stream_spec *from, struct segue_spec **out)
{
	struct segue_spec *spec;
	int rc = check_arrays(from);

	if (rc)
		return rc;
	spec = calloc(1, sizeof(*spec));
	if (!spec)
		return fail_memory();
	rc = take_all(from, spec);
	if (!rc)
		rc = segue_spec_check(spec);
	if (rc) {
		segue_spec_destroy(spec);
		return rc;
	}
	spec->init_hash = calloc(spec->state_count + 1, sizeof(*spec->init_hash));
	if (!spec->init_hash) {
		segue_spec_destroy(spec);
		return fail_memory();
	}
	for (size_t i = 0; i < spec->state_count; i++)
		hash_init(from->states[i].init, spec->states[i].size, spec->init_hash[i]);
	*out = spec;
	return 0;
}

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
	to->init_hash = calloc(from->state_count + 1, sizeof(*to->init_hash));
	if (!to->init_hash)
		return fail_memory();
	if (from->state_count)
		memcpy(to->init_hash, from->init_hash, from->state_count * sizeof(*to->init_hash));
	return 0;
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
	copy->sequence_count = copy->context_count = copy->state_count = 0;
	int rc = copy_owned(spec, copy);
	if (rc) {
		segue_spec_destroy(copy);
		return rc;
	}
	*out = copy;
	return 0;
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
	destroy_fields(spec->sequences, spec->sequence_count);
	destroy_fields(spec->contexts, spec->context_count);
	destroy_fields(spec->states, spec->state_count);
	free(spec->init_hash);
	free(spec->name);
	free(spec);
}

/* ---- Hashing ---- */

static void hash_fields(struct segue_digest *digest, const struct segue_field *fields, size_t count)
{
	segue_digest_number(digest, count);
	for (size_t i = 0; i < count; i++) {
		segue_digest_text(digest, fields[i].name);
		segue_digest_number(digest, fields[i].dtype);
		segue_digest_number(digest, fields[i].rank);
		for (uint32_t d = 0; d < fields[i].rank; d++)
			segue_digest_number(digest, fields[i].dims[d]);
	}
}

static void hash_forms(struct segue_digest *digest, const char *kind,
	const struct segue_field *fields, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fields[i].form != SEGUE_FORM_DENSE) {
			segue_digest_text(digest, kind);
			segue_digest_text(digest, fields[i].name);
			segue_digest_number(digest, fields[i].form);
		}
}

/* By name, and only what is not usual: so it changed no hash when it came. */
static void hash_unusual(struct segue_digest *digest, const struct segue_spec *spec)
{
	hash_forms(digest, "sequences.form", spec->sequences, spec->sequence_count);
	hash_forms(digest, "contexts.form", spec->contexts, spec->context_count);
	for (size_t i = 0; i < spec->state_count; i++)
		if (spec->states[i].from_data) {
			segue_digest_text(digest, "states.from_data");
			segue_digest_text(digest, spec->states[i].name);
		}
}

void segue_spec_hash(const struct segue_spec *spec, uint64_t hash[2])
{
	struct segue_digest digest;

	segue_digest_init(&digest);
	segue_digest_number(&digest, HASH_VERSION);
	hash_fields(&digest, spec->sequences, spec->sequence_count);
	hash_fields(&digest, spec->contexts, spec->context_count);
	hash_fields(&digest, spec->states, spec->state_count);
	for (size_t i = 0; i < spec->state_count; i++) {
		segue_digest_number(&digest, spec->init_hash[i][0]);
		segue_digest_number(&digest, spec->init_hash[i][1]);
	}
	hash_unusual(&digest, spec);
	segue_options_hash(segue_spec_options, spec, &digest);
	segue_source_hash(&spec->source, &digest);
	segue_digest_finish(&digest, hash);
}

/* ---- Comparing ---- */

#define SHAPE_TEXT (SEGUE_RANK_MAX * 22 + 3)

/* "[3, 4]" */
static void print_shape(const struct segue_field *field, char text[SHAPE_TEXT])
{
	size_t used = 1;

	text[0] = '[';
	for (uint32_t d = 0; d < field->rank; d++)
		used += (size_t)snprintf(text + used, SHAPE_TEXT - used, "%s%" PRIu64,
			d ? ", " : "", field->dims[d]);
	snprintf(text + used, SHAPE_TEXT - used, "]");
}

static const struct segue_field *find(
	const struct segue_field *fields, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(fields[i].name, name) == 0)
			return &fields[i];
	return NULL;
}

static void compare_field(struct segue_differences *list, const char *kind,
	const struct segue_field *stored, const struct segue_field *asked)
{
	char stored_shape[SHAPE_TEXT], asked_shape[SHAPE_TEXT];

	if (stored->dtype != asked->dtype)
		segue_differ(list, "%s \"%s\" dtype: %s in the store, %s asked for", kind,
			stored->name, segue_dtype_name(stored->dtype),
			segue_dtype_name(asked->dtype));
	if (stored->form != asked->form)
		segue_differ(list, "%s \"%s\": %s in the store, %s asked for", kind, stored->name,
			segue_form_name(stored->form), segue_form_name(asked->form));
	print_shape(stored, stored_shape);
	print_shape(asked, asked_shape);
	if (strcmp(stored_shape, asked_shape) != 0)
		segue_differ(list, "%s \"%s\" shape: %s in the store, %s asked for", kind,
			stored->name, stored_shape, asked_shape);
}

/* The places matter too: they are the order of the tensors. */
static void compare_order(struct segue_differences *list, const char *kind,
	const struct segue_field *stored, const struct segue_field *asked, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(stored[i].name, asked[i].name) != 0) {
			segue_differ(list,
				"order of %s: \"%s\" at place %zu in the store, \"%s\" asked for",
				kind, stored[i].name, i, asked[i].name);
			return;
		}
}

static void compare_fields(struct segue_differences *list, const char *kind,
	const struct segue_field *stored, size_t stored_count, const struct segue_field *asked,
	size_t asked_count)
{
	size_t common = 0;

	for (size_t i = 0; i < stored_count; i++) {
		const struct segue_field *other = find(asked, asked_count, stored[i].name);

		if (other) {
			compare_field(list, kind, &stored[i], other);
			common++;
		} else {
			segue_differ(list, "%s \"%s\": in the store, not asked for", kind,
				stored[i].name);
		}
	}
	for (size_t i = 0; i < asked_count; i++)
		if (!find(stored, stored_count, asked[i].name))
			segue_differ(list, "%s \"%s\": not in the store, asked for", kind,
				asked[i].name);
	if (common == stored_count && common == asked_count)
		compare_order(list, kind, stored, asked, common);
}

static void compare_init(struct segue_differences *list, const struct segue_spec *stored,
	const struct segue_spec *asked)
{
	for (size_t i = 0; i < stored->state_count; i++) {
		const struct segue_field *a = &stored->states[i];
		const struct segue_field *b = find(asked->states, asked->state_count, a->name);
		const uint64_t *old = stored->init_hash[i], *new;

		if (b && a->from_data != b->from_data)
			segue_differ(list,
				"states \"%s\" initial value: %s in the store, %s asked for",
				a->name, a->from_data ? "from the data" : "one for all",
				b->from_data ? "from the data" : "one for all");
		/* Of another size, the value differs for that reason alone. */
		if (!b || a->size != b->size || a->from_data || b->from_data)
			continue;
		new = asked->init_hash[b - asked->states];
		if (old[0] != new[0] || old[1] != new[1])
			segue_differ(list,
				"states \"%s\" initial value: one of hash %016" PRIx64 "%016" PRIx64
				" in the store, %016" PRIx64 "%016" PRIx64 " asked for",
				a->name, old[1], old[0], new[1], new[0]);
	}
}

int segue_spec_compare(const struct segue_spec *stored, const struct segue_spec *asked)
{
	struct segue_differences list = {.used = 0};

	segue_options_compare(segue_spec_options, stored, asked, &list);
	segue_source_compare(&stored->source, &asked->source, &list);
	compare_fields(&list, "sequences", stored->sequences, stored->sequence_count,
		asked->sequences, asked->sequence_count);
	compare_fields(&list, "context", stored->contexts, stored->context_count, asked->contexts,
		asked->context_count);
	compare_fields(&list, "states", stored->states, stored->state_count, asked->states,
		asked->state_count);
	compare_init(&list, stored, asked);
	int rc = segue_differences_fail(&list);
	return rc ? segue_fail(rc,
			    "%s. A stream keeps these as it was made: give a new one another name, "
			    "where first_epoch goes on at a later epoch, or drop this one first "
			    "(client.drop(\"%s\"), segue stream rm DIR \"%s\")",
			    segue_error_detail(), stored->name, stored->name)
		  : 0;
}
