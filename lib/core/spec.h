/*
 * A stream's spec, as library and server keep it: the handle of segue.h, and what came in a
 * message or a record.
 *
 * Pure: no I/O. The hash of the identity part names what states and positions belong to; it is
 * stored with them and in every token.
 */
#ifndef SEGUE_CORE_SPEC_H
#define SEGUE_CORE_SPEC_H

#include "core/boundaries.h"
#include "core/policy.h"
#include "core/spec_source.h"

struct segue_field {
	char *name;
	enum segue_dtype dtype;
	uint32_t rank;
	uint64_t dims[SEGUE_RANK_MAX];
	uint64_t elements; /* product of dims: values a step (or a row) */
	uint64_t size;     /* elements * bytes of the dtype */
	bool from_data;    /* of a state: each sequence has its own initial value */
	struct segue_state_policy policy;
	/* Not dense: rank 0, elements 1, and size is that of one of any number of values. */
	enum segue_form form;
};

struct segue_spec {
	char *name;
	struct segue_spec_source source;

	struct segue_field *sequences;
	size_t sequence_count;
	struct segue_field *contexts;
	size_t context_count;
	struct segue_field *states;
	size_t state_count;
	uint64_t (*init_hash)[2]; /* per state: XXH3-128 of its initial value, as {low64, high64} */
	/* Per state: the value itself, one row; NULL: zeros. NULL where a message brought it. */
	void **init;

	SEGUE_OPTIONS(SEGUE_OPTION_FIELD)
	struct segue_boundaries boundaries; /* identity; called bucket_boundaries */
};

/* Those of struct segue_spec. */
extern const struct segue_option segue_spec_options[];

/*
 * Checks a whole spec, one that was put together here or came from a peer (already unpacked), and
 * sets what follows from its fields. SEGUE_EINVAL names the field, its value and what is allowed:
 * what the setters of segue.h refuse, what must be there and is not, what does not go together.
 */
int segue_spec_check(struct segue_spec *spec);

/* The window, of a spec that was checked; 0 without boundaries. */
uint32_t segue_spec_window(const struct segue_spec *spec);
/* The least capacity that its log must have, for 0 and all others: sequences of a lane. */
uint64_t segue_spec_least_capacity(const struct segue_spec *spec);

/* Of an initial value of `size` bytes; NULL: zeros. */
void segue_init_hash(const void *init, uint64_t size, uint64_t hash[2]);

/* Whether a state has an initial value that is not zeros, and of which there is the hash alone. */
bool segue_spec_wants_init(const struct segue_spec *spec, size_t state);

/*
 * Whether there is a place in the slot for what a row begins with: it has it from the data, or what
 * was kept may come in (of spans with SEGUE_SPAN_KEPT). Else it is the spec's initial value.
 */
static inline bool segue_spec_brings_initial(const struct segue_spec *spec, size_t state)
{
	return spec->states[state].from_data || spec->initial == SEGUE_INITIAL_KEPT;
}

/* Steps of a segment: of whole sequences the most that one can have. */
static inline uint32_t segue_spec_unroll(const struct segue_spec *spec)
{
	return spec->num_unroll ? spec->num_unroll : spec->maximum_length;
}

/* Whether batches are cut to the longest length in them. */
static inline bool segue_spec_trims(const struct segue_spec *spec)
{
	return spec->trim || !spec->num_unroll;
}

/* Steps of a sequence that has so many, as they are delivered: on_too_long may cut them. */
static inline uint64_t segue_spec_cut(const struct segue_spec *spec, uint64_t steps)
{
	bool cut = spec->maximum_length && spec->on_too_long == SEGUE_ON_TOO_LONG_TRUNCATE &&
		   steps > spec->maximum_length;

	return cut ? spec->maximum_length : steps;
}

/* Whether the stream has no such sequence: one with more steps than maximum_length, uncut. */
static inline bool segue_spec_is_too_long(const struct segue_spec *spec, uint64_t steps)
{
	return spec->maximum_length && segue_spec_cut(spec, steps) > spec->maximum_length;
}

/* The list that a field belongs to, as errors call it. */
enum segue_field_list { SEGUE_FIELD_SEQUENCE, SEGUE_FIELD_CONTEXT, SEGUE_FIELD_STATE };
/* As in errors: "sequences". Static. */
const char *segue_spec_list_name(enum segue_field_list list);
struct segue_field *segue_spec_fields(
	const struct segue_spec *spec, enum segue_field_list list, size_t *count);
/* What is right by itself, options, fields and source, against one another. SEGUE_EINVAL. */
int segue_spec_check_together(const struct segue_spec *spec);

/*
 * Checks the last field of a list on its own and beside those before it, and how many there are;
 * sets its elements and size.
 */
int segue_spec_check_last(const struct segue_spec *spec, enum segue_field_list list);

/* The features beside the index of arrays, if the source has one. SEGUE_EINVAL. */
int segue_spec_check_index(const struct segue_spec *spec);

/* A deep copy; the caller owns it (segue_spec_destroy). SEGUE_ENOMEM. */
int segue_spec_copy(const struct segue_spec *spec, struct segue_spec **out);

/*
 * Hash of the identity: features, states (with their initial values), and what is identity of the
 * options (core/options.h) and of the source (core/spec_source.h). Neither the stream's name nor
 * its paths are part of it: the data set has a fingerprint of its own, so that a token can go where
 * the files lie elsewhere.
 */
void segue_spec_hash(const struct segue_spec *spec, uint64_t hash[2]);

/*
 * Compares the identity and schedule parts of two specs, but for the epochs, which may grow
 * (core/ends.h). 0 if equal; else SEGUE_ESPEC, and the detail names every field that differs with
 * both values ("num_unroll: 20 in the store, 30 asked for; ..."), and says what to do.
 */
int segue_spec_compare(const struct segue_spec *stored, const struct segue_spec *asked);

#endif
