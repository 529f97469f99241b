/*
 * A stream's spec: checked, hashed, compared.
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
#define HASH_VERSION   3

const struct segue_option segue_spec_options[] = {
#define ROW(name, type, id, part, ...)                                                             \
	SEGUE_OPTION_ROW(struct segue_spec, name, #name, id, part, __VA_ARGS__),
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

const char *segue_spec_list_name(enum segue_field_list list)
{
	static const char *const names[] = {"sequences", "context", "states"};

	return names[list];
}

struct segue_field *segue_spec_fields(
	const struct segue_spec *spec, enum segue_field_list list, size_t *count)
{
	*count = 0;
	switch (list) {
	case SEGUE_FIELD_SEQUENCE:
		*count = spec->sequence_count;
		return spec->sequences;
	case SEGUE_FIELD_CONTEXT:
		*count = spec->context_count;
		return spec->contexts;
	case SEGUE_FIELD_STATE:
		*count = spec->state_count;
		return spec->states;
	}
	return NULL;
}

/* On its own, and beside those before it. */
static int check_field(const struct segue_spec *spec, enum segue_field_list list, size_t i)
{
	const char *kind = segue_spec_list_name(list);
	size_t count;
	struct segue_field *fields = segue_spec_fields(spec, list, &count);
	char what[64];
	int rc;

	snprintf(what, sizeof(what), "%s[%zu].name", kind, i);
	rc = segue_name_check(what, fields[i].name, false);
	if (!rc)
		rc = check_shape(kind, i, &fields[i]);
	if (!rc)
		rc = check_form(kind, i, &fields[i]);
	if (!rc && list == SEGUE_FIELD_STATE && fields[i].form != SEGUE_FORM_DENSE)
		rc = segue_fail(
			SEGUE_EINVAL, "%s: a state is dense, not ragged or bytes", fields[i].name);
	if (!rc && list == SEGUE_FIELD_STATE)
		rc = segue_policy_check(&fields[i].policy, i, fields[i].name);
	if (!rc)
		rc = check_twice(kind, fields, i, kind, &fields[i], i);
	return rc;
}

static int check_counts(const struct segue_spec *spec)
{
	if (spec->sequence_count > SEGUE_FEATURES_MAX ||
		spec->context_count > SEGUE_FEATURES_MAX - spec->sequence_count)
		return segue_fail(SEGUE_EINVAL,
			"there are %zu sequences and %zu context, together at most %d are allowed",
			spec->sequence_count, spec->context_count, SEGUE_FEATURES_MAX);
	return segue_range_check("the number of states", spec->state_count, 0, SEGUE_STATES_MAX);
}

int segue_spec_check_last(const struct segue_spec *spec, enum segue_field_list list)
{
	size_t count;
	int rc = check_counts(spec);

	segue_spec_fields(spec, list, &count);
	return rc ? rc : check_field(spec, list, count - 1);
}

static int check_features(const struct segue_spec *spec)
{
	int rc = 0;

	for (unsigned list = 0; list <= SEGUE_FIELD_STATE; list++) {
		size_t count;

		segue_spec_fields(spec, (enum segue_field_list)list, &count);
		for (size_t i = 0; !rc && i < count; i++)
			rc = check_field(spec, (enum segue_field_list)list, i);
	}
	/* A file may have both. */
	for (size_t i = 0; !rc && i < spec->context_count; i++)
		rc = check_twice("sequences", spec->sequences, spec->sequence_count, "context",
			&spec->contexts[i], i);
	return rc;
}

/* ---- The whole ---- */

uint32_t segue_spec_window(const struct segue_spec *spec)
{
	uint64_t usual = 16 * (uint64_t)spec->batch_size;

	if (spec->boundaries.count == 0)
		return 0;
	if (spec->window)
		return spec->window;
	return usual < SEGUE_WINDOW_MAX ? (uint32_t)usual : SEGUE_WINDOW_MAX;
}

uint64_t segue_spec_least_capacity(const struct segue_spec *spec)
{
	return segue_spec_window(spec) + (spec->depth + 2) * (uint64_t)spec->batch_size;
}

int segue_spec_check(struct segue_spec *spec)
{
	int rc = segue_name_check("name", spec->name, false);

	if (!rc)
		rc = segue_range_check(
			"the number of sequences", spec->sequence_count, 1, SEGUE_FEATURES_MAX);
	if (!rc)
		rc = check_counts(spec);
	if (!rc)
		rc = segue_source_check(&spec->source);
	if (!rc)
		rc = check_features(spec);
	if (!rc)
		rc = segue_options_check(segue_spec_options, "", spec);
	if (!rc)
		rc = segue_spec_check_together(spec);
	if (!rc)
		rc = segue_spec_check_index(spec);
	return rc;
}

/* ---- Hashing ---- */

/*
 * Of a field, what each has; then, before the end, what later versions add: by name, and only where
 * it is not the usual. So is it with options and sources. What a stream does not use is not hashed,
 * and it has the same hash in each version.
 */
static void hash_fields(struct segue_digest *digest, const struct segue_field *fields, size_t count)
{
	segue_digest_number(digest, count);
	for (size_t i = 0; i < count; i++) {
		segue_digest_text(digest, fields[i].name);
		segue_digest_number(digest, fields[i].dtype);
		segue_digest_number(digest, fields[i].rank);
		for (uint32_t d = 0; d < fields[i].rank; d++)
			segue_digest_number(digest, fields[i].dims[d]);
		if (fields[i].form != SEGUE_FORM_DENSE) {
			segue_digest_text(digest, "form");
			segue_digest_number(digest, fields[i].form);
		}
		if (fields[i].from_data)
			segue_digest_text(digest, "from_data");
		if (fields[i].policy.kind != SEGUE_POLICY_CARRY) {
			segue_digest_text(digest, "policy");
			segue_digest_number(digest, fields[i].policy.kind);
			segue_digest_number(digest, segue_policy_bits(&fields[i].policy));
		}
		segue_digest_text(digest, "");
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
	segue_options_hash(segue_spec_options, spec, &digest);
	if (spec->boundaries.count > 0) {
		segue_digest_text(&digest, "bucket_boundaries");
		segue_digest_number(&digest, spec->boundaries.count);
		for (uint32_t i = 0; i < spec->boundaries.count; i++)
			segue_digest_number(&digest, spec->boundaries.length[i]);
	}
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

static void compare_policies(struct segue_differences *list, const struct segue_spec *stored,
	const struct segue_spec *asked)
{
	for (size_t i = 0; i < stored->state_count; i++) {
		const struct segue_field *a = &stored->states[i];
		const struct segue_field *b = find(asked->states, asked->state_count, a->name);
		char text[2][SEGUE_POLICY_TEXT];

		if (b && (a->policy.kind != b->policy.kind ||
				 segue_policy_bits(&a->policy) != segue_policy_bits(&b->policy)))
			segue_differ(list, "states \"%s\" policy: %s in the store, %s asked for",
				a->name, segue_policy_print(&a->policy, text[0]),
				segue_policy_print(&b->policy, text[1]));
	}
}

static void compare_boundaries(struct segue_differences *list,
	const struct segue_boundaries *stored, const struct segue_boundaries *asked)
{
	char text[2][SEGUE_BOUNDARIES_TEXT];
	bool same = stored->count == asked->count;

	for (uint32_t i = 0; same && i < stored->count; i++)
		same = stored->length[i] == asked->length[i];
	if (!same)
		segue_differ(list, "bucket_boundaries: %s in the store, %s asked for",
			segue_boundaries_print(stored, text[0]),
			segue_boundaries_print(asked, text[1]));
}

int segue_spec_compare(const struct segue_spec *stored, const struct segue_spec *asked)
{
	struct segue_differences list = {.used = 0};

	segue_options_compare(segue_spec_options, stored, asked, &list);
	compare_boundaries(&list, &stored->boundaries, &asked->boundaries);
	segue_source_compare(&stored->source, &asked->source, &list);
	compare_fields(&list, "sequences", stored->sequences, stored->sequence_count,
		asked->sequences, asked->sequence_count);
	compare_fields(&list, "context", stored->contexts, stored->context_count, asked->contexts,
		asked->context_count);
	compare_fields(&list, "states", stored->states, stored->state_count, asked->states,
		asked->state_count);
	compare_init(&list, stored, asked);
	compare_policies(&list, stored, asked);
	int rc = segue_differences_fail(&list);
	return rc ? segue_fail(rc,
			    "%s. A stream keeps these as it was made: give a new one another name, "
			    "where first_epoch goes on at a later epoch, or drop this one first "
			    "(client.drop(\"%s\"), segue stream rm DIR \"%s\")%s",
			    segue_error_detail(), stored->name, stored->name,
			    stored->batch_size == asked->batch_size
				    ? ""
				    : "; its loaders change batch_size, once it is open as it was "
				      "made "
				      "(loader.set_batch_size)")
		  : 0;
}
