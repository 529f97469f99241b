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

static const char *const list_names[] = {"sequences", "context", "states"};

static struct segue_field *fields_of(
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
	const char *kind = list_names[list];
	size_t count;
	struct segue_field *fields = fields_of(spec, list, &count);
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

	fields_of(spec, list, &count);
	return rc ? rc : check_field(spec, list, count - 1);
}

static int check_features(const struct segue_spec *spec)
{
	int rc = 0;

	for (unsigned list = 0; list <= SEGUE_FIELD_STATE; list++) {
		size_t count;

		fields_of(spec, (enum segue_field_list)list, &count);
		for (size_t i = 0; !rc && i < count; i++)
			rc = check_field(spec, (enum segue_field_list)list, i);
	}
	/* A file may have both. */
	for (size_t i = 0; !rc && i < spec->context_count; i++)
		rc = check_twice("sequences", spec->sequences, spec->sequence_count, "context",
			&spec->contexts[i], i);
	return rc;
}

/* ---- What goes together ---- */

static bool is_kept_nowhere(const struct segue_spec *spec)
{
	return spec->keep_final && !spec->persist;
}

static bool has_passes_over_mix(const struct segue_spec *spec)
{
	return spec->source.kind == SEGUE_SOURCE_MIX &&
	       (spec->epochs != 1 || spec->first_epoch != 0);
}

static bool ends_before_it_begins(const struct segue_spec *spec)
{
	return spec->epochs != 0 && spec->epochs <= spec->first_epoch;
}

static bool is_log(const struct segue_spec *spec)
{
	return spec->source.kind == SEGUE_SOURCE_LOG;
}

static bool has_nowhere_to_insert(const struct segue_spec *spec)
{
	return segue_source_find_log(&spec->source) && !spec->persist;
}

static bool shuffles_what_is_not_there(const struct segue_spec *spec)
{
	return is_log(spec) && spec->shuffle;
}

static bool has_passes_over_log(const struct segue_spec *spec)
{
	return is_log(spec) && (spec->epochs != 1 || spec->first_epoch != 0);
}

static const char *has_no_initial(const struct segue_spec *spec, enum segue_field_list list,
	const struct segue_field *field, const char **kind)
{
	(void)list;
	*kind = segue_source_row(spec->source.kind)->name;
	return field->from_data && !segue_source_has_initial(&spec->source)
		       ? "to have its initial value from the data (in C: init_from_data)"
		       : NULL;
}

static const char *has_no_variable(const struct segue_spec *spec, enum segue_field_list list,
	const struct segue_field *field, const char **kind)
{
	*kind = segue_source_lacks(&spec->source, field->form, list == SEGUE_FIELD_CONTEXT);
	return *kind ? segue_form_name(field->form) : NULL;
}

/*
 * What is right by itself and does not go together: two options, an option (`other` 0) or a field
 * and the kind of source. docs/guide.md has the same table. What is in no row goes together, but
 * for the capacity of a log, which has a least one (segue_source_check_capacity).
 */
static const struct {
	enum segue_spec_option one, other;
	bool (*wrong)(const struct segue_spec *spec);
	/* What the field is that it cannot be, and by which kind of source; NULL: all is well. */
	const char *(*wrong_field)(const struct segue_spec *spec, enum segue_field_list list,
		const struct segue_field *field, const char **kind);
	const char *because;
} together[] = {
	{.one = SEGUE_SPEC_KEEP_FINAL,
		.other = SEGUE_SPEC_PERSIST,
		.wrong = is_kept_nowhere,
		.because = "there is no store to keep final states in"},
	{.one = SEGUE_SPEC_EPOCHS,
		.other = SEGUE_SPEC_FIRST_EPOCH,
		.wrong = has_passes_over_mix,
		.because = "passes over a mix are those over its parts, which have epochs of their "
			   "own; the stream's are 1, from 0 on"},
	{.one = SEGUE_SPEC_PERSIST,
		.wrong = has_nowhere_to_insert,
		.because = "what is inserted is kept in the store"},
	{.one = SEGUE_SPEC_SHUFFLE,
		.wrong = shuffles_what_is_not_there,
		.because = "what is inserted comes in the order in which it was accepted"},
	{.one = SEGUE_SPEC_EPOCHS,
		.other = SEGUE_SPEC_FIRST_EPOCH,
		.wrong = has_passes_over_log,
		.because = "there is one pass over what is inserted: the stream's epochs are 1, "
			   "from 0 on"},
	{.one = SEGUE_SPEC_EPOCHS,
		.other = SEGUE_SPEC_FIRST_EPOCH,
		.wrong = ends_before_it_begins,
		.because = "epochs counts from 0, also where the stream begins later, and must be "
			   "more than first_epoch"},
	{.wrong_field = has_no_initial,
		.because = "write sequence files with it (segue.convert, segue.FileWriter), which "
			   "segue.Files reads, or give one value for all"},
	{.wrong_field = has_no_variable,
		.because = "write sequence files with it (segue.convert, segue.FileWriter), which "
			   "segue.Files reads"},
};
#define ROWS (sizeof(together) / sizeof(together[0]))

static int check_options_together(const struct segue_spec *spec)
{
	for (size_t i = 0; i < ROWS; i++) {
		const struct segue_option *one, *other;
		char text[2][24];

		if (!together[i].wrong || !together[i].wrong(spec))
			continue;
		one = segue_option_find(segue_spec_options, together[i].one);
		if (!together[i].other)
			return segue_fail(SEGUE_EINVAL, "%s is %s and the source of kind %s: %s",
				one->name, segue_option_print(one, spec, text[0]),
				segue_source_row(spec->source.kind)->name, together[i].because);
		other = segue_option_find(segue_spec_options, together[i].other);
		return segue_fail(SEGUE_EINVAL, "%s is %s and %s %s: %s", one->name,
			segue_option_print(one, spec, text[0]), other->name,
			segue_option_print(other, spec, text[1]), together[i].because);
	}
	return 0;
}

static int check_field_together(
	const struct segue_spec *spec, enum segue_field_list list, size_t place)
{
	size_t count;
	const struct segue_field *field = &fields_of(spec, list, &count)[place];

	for (size_t i = 0; i < ROWS; i++) {
		const char *kind, *what = NULL;

		if (together[i].wrong_field)
			what = together[i].wrong_field(spec, list, field, &kind);
		if (what)
			return segue_fail(SEGUE_EINVAL,
				"%s[%zu] \"%s\" is %s, which a source of kind %s does not have: %s",
				list_names[list], place, field->name, what, kind,
				together[i].because);
	}
	return 0;
}

static int check_together(const struct segue_spec *spec)
{
	int rc = 0;

	for (unsigned list = 0; list <= SEGUE_FIELD_STATE; list++) {
		size_t count;

		fields_of(spec, (enum segue_field_list)list, &count);
		for (size_t i = 0; !rc && i < count; i++)
			rc = check_field_together(spec, (enum segue_field_list)list, i);
	}
	if (!rc)
		rc = check_options_together(spec);
	return rc ? rc
		  : segue_source_check_capacity(
			    &spec->source, (spec->depth + 2) * (uint64_t)spec->batch_size);
}

/* ---- The whole ---- */

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
		rc = check_together(spec);
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
