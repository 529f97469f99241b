/* What of a stream's spec goes together. */
#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "core/spec.h"

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

static bool splits_what_has_no_records(const struct segue_spec *spec)
{
	return spec->lanes_by == SEGUE_LANES_BY_RECORD &&
	       (is_log(spec) || spec->source.kind == SEGUE_SOURCE_MIX);
}

static bool keeps_nothing(const struct segue_spec *spec)
{
	return spec->initial == SEGUE_INITIAL_KEPT && !spec->keep_final;
}

static bool comes_again_elsewhere(const struct segue_spec *spec)
{
	return spec->initial == SEGUE_INITIAL_KEPT && spec->lanes_by != SEGUE_LANES_BY_RECORD;
}

static bool gathers_nobody(const struct segue_spec *spec)
{
	return spec->groups && !spec->persist;
}

static bool gathers_what_differs(const struct segue_spec *spec)
{
	return spec->groups && spec->initial == SEGUE_INITIAL_KEPT;
}

static bool detaches_never(const struct segue_spec *spec)
{
	return spec->on_lag == SEGUE_ON_LAG_DETACH && !spec->max_lag_ms;
}

static bool has_passes_over_log(const struct segue_spec *spec)
{
	return is_log(spec) && (spec->epochs != 1 || spec->first_epoch != 0);
}

static bool has_no_limit(const struct segue_spec *spec)
{
	return spec->on_too_long != SEGUE_ON_TOO_LONG_ERROR && !spec->maximum_length;
}

static bool is_live_mix(const struct segue_spec *spec)
{
	return spec->source.kind == SEGUE_SOURCE_MIX && segue_source_find_log(&spec->source);
}

static bool passes_over_damage_in_a_live_mix(const struct segue_spec *spec)
{
	return is_live_mix(spec) && spec->on_error == SEGUE_ON_ERROR_SKIP;
}

static bool passes_over_length_in_a_live_mix(const struct segue_spec *spec)
{
	return is_live_mix(spec) && spec->on_too_long == SEGUE_ON_TOO_LONG_SKIP;
}

static bool is_cut_within_a_segment(const struct segue_spec *spec)
{
	return !spec->pad && spec->on_too_long == SEGUE_ON_TOO_LONG_TRUNCATE && spec->num_unroll &&
	       spec->maximum_length % spec->num_unroll;
}

static bool is_whole_without_limit(const struct segue_spec *spec)
{
	return !spec->num_unroll &&
	       (!spec->maximum_length || spec->maximum_length > SEGUE_UNROLL_MAX);
}

static bool is_whole_without_padding(const struct segue_spec *spec)
{
	return !spec->num_unroll && !spec->pad;
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
	{.one = SEGUE_SPEC_LANES_BY,
		.wrong = splits_what_has_no_records,
		.because = "lanes have records of their own only where all of them are there, and "
			   "come once an epoch"},
	{.one = SEGUE_SPEC_INITIAL,
		.other = SEGUE_SPEC_KEEP_FINAL,
		.wrong = keeps_nothing,
		.because = "a row begins with the final states of its key: keep those, too "
			   "(keep_final)"},
	{.one = SEGUE_SPEC_INITIAL,
		.other = SEGUE_SPEC_LANES_BY,
		.wrong = comes_again_elsewhere,
		.because = "what a row begins with would depend on how fast other lanes are: give "
			   "lanes_by=\"record\", by which a key comes again in its own lane"},
	{.one = SEGUE_SPEC_GROUPS,
		.other = SEGUE_SPEC_PERSIST,
		.wrong = gathers_nobody,
		.because = "there are no groups where nothing is stored"},
	{.one = SEGUE_SPEC_GROUPS,
		.other = SEGUE_SPEC_INITIAL,
		.wrong = gathers_what_differs,
		.because = "rows begin with what their own group has kept, so that groups have no "
			   "batches in common"},
	{.one = SEGUE_SPEC_ON_LAG,
		.other = SEGUE_SPEC_MAX_LAG_MS,
		.wrong = detaches_never,
		.because = "it says what becomes of groups that were kept waiting for max_lag: "
			   "give that, too"},
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
	{.one = SEGUE_SPEC_ON_TOO_LONG,
		.other = SEGUE_SPEC_MAXIMUM_LENGTH,
		.wrong = has_no_limit,
		.because = "it says what becomes of sequences that are longer than maximum_length, "
			   "and there is none: give that, too"},
	{.one = SEGUE_SPEC_ON_ERROR,
		.wrong = passes_over_damage_in_a_live_mix,
		.because =
			"a part is inserted, and what waits for it would wait for what is passed "
			"over: give \"raise\", and write damaged files again"},
	{.one = SEGUE_SPEC_ON_TOO_LONG,
		.wrong = passes_over_length_in_a_live_mix,
		.because =
			"a part is inserted, and what waits for it would wait for what is passed "
			"over: leave out what is too long, or give \"truncate\""},
	{.one = SEGUE_SPEC_MAXIMUM_LENGTH,
		.other = SEGUE_SPEC_PAD,
		.wrong = is_cut_within_a_segment,
		.because = "with on_too_long=\"truncate\" sequences are cut to that length, which "
			   "is then a multiple of num_unroll"},
	{.one = SEGUE_SPEC_NUM_UNROLL,
		.other = SEGUE_SPEC_MAXIMUM_LENGTH,
		.wrong = is_whole_without_limit,
		.because = "a batch of whole sequences has room for the longest that there may be: "
			   "give maximum_length, up to 1048576 steps, or num_unroll"},
	{.one = SEGUE_SPEC_NUM_UNROLL,
		.other = SEGUE_SPEC_PAD,
		.wrong = is_whole_without_padding,
		.because = "sequences of a batch are as long as the longest of them: leave pad as "
			   "it is"},
	{.wrong_field = has_no_initial,
		.because = "write sequence files with it (segue.convert, segue.FileWriter), which "
			   "segue.Files reads, or give one value for all"},
	{.wrong_field = has_no_variable,
		.because = "write sequence files with it (segue.convert, segue.FileWriter), which "
			   "segue.Files reads"},
};
#define ROWS (sizeof(together) / sizeof(together[0]))

/* Its name but for the unit, which Python's has not. */
static int plain_length(const struct segue_option *option)
{
	bool ms = option->unit && strcmp(option->unit, "ms") == 0;

	return (int)strlen(option->name) - (ms ? (int)strlen("_ms") : 0);
}

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
		return segue_fail(SEGUE_EINVAL, "%s is %s and %.*s %s: %s", one->name,
			segue_option_print(one, spec, text[0]), plain_length(other), other->name,
			segue_option_print(other, spec, text[1]), together[i].because);
	}
	return 0;
}

static int check_field_together(
	const struct segue_spec *spec, enum segue_field_list list, size_t place)
{
	size_t count;
	const struct segue_field *field = &segue_spec_fields(spec, list, &count)[place];

	for (size_t i = 0; i < ROWS; i++) {
		const char *kind, *what = NULL;

		if (together[i].wrong_field)
			what = together[i].wrong_field(spec, list, field, &kind);
		if (what)
			return segue_fail(SEGUE_EINVAL,
				"%s[%zu] \"%s\" is %s, which a source of kind %s does not have: %s",
				segue_spec_list_name(list), place, field->name, what, kind,
				together[i].because);
	}
	return 0;
}

/* Boundaries, and what does not go with them; in docs/guide.md as well. */
static int check_classes(const struct segue_spec *spec)
{
	char text[SEGUE_BOUNDARIES_TEXT];
	int rc = segue_boundaries_check(&spec->boundaries);

	if (rc)
		return rc;
	if (spec->window && spec->boundaries.count == 0)
		return segue_fail(SEGUE_EINVAL,
			"window is %" PRIu32 " and bucket_boundaries None: it says among how many "
			"sequences those of one class are found; give both, or no window",
			spec->window);
	if (spec->boundaries.count == 0)
		return 0;
	if (spec->window && spec->window < spec->batch_size)
		return segue_fail(SEGUE_EINVAL,
			"window is %" PRIu32 ", which is less than batch_size = %" PRIu32
			": no batch of a class would be full; give 16 * batch_size, or more",
			spec->window, spec->batch_size);
	if (spec->tail == SEGUE_TAIL_STOP)
		return segue_fail(SEGUE_EINVAL,
			"tail is stop and bucket_boundaries %s: batches get smaller wherever a "
			"class runs out, and tail=\"stop\" wants full ones; give tail=\"shrink\", "
			"or \"pad\"",
			segue_boundaries_print(&spec->boundaries, text));
	return 0;
}

int segue_spec_check_together(const struct segue_spec *spec)
{
	int rc = 0;

	for (unsigned list = 0; list <= SEGUE_FIELD_STATE; list++) {
		size_t count;

		segue_spec_fields(spec, (enum segue_field_list)list, &count);
		for (size_t i = 0; !rc && i < count; i++)
			rc = check_field_together(spec, (enum segue_field_list)list, i);
	}
	if (!rc)
		rc = check_options_together(spec);
	if (!rc)
		rc = check_classes(spec);
	return rc ? rc
		  : segue_source_check_capacity(&spec->source,
			    spec->boundaries.count ? "window + " : "",
			    segue_spec_least_capacity(spec));
}
