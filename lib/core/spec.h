/*
 * A stream's spec, as library and server keep it: the handle of segue.h, and what came in a
 * message or a record.
 *
 * Pure: no I/O. The hash of the identity part names what states and positions belong to; it is
 * stored with them and in every token.
 */
#ifndef SEGUE_CORE_SPEC_H
#define SEGUE_CORE_SPEC_H

#include "core/spec_source.h"

struct segue_field {
	char *name;
	enum segue_dtype dtype;
	uint32_t rank;
	uint64_t dims[SEGUE_RANK_MAX];
	uint64_t elements; /* product of dims: values a step (or a row) */
	uint64_t size;     /* elements * bytes of the dtype */
	bool from_data;    /* of a state: each sequence has its own initial value */
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
};

/* Those of struct segue_spec. */
extern const struct segue_option segue_spec_options[];

/*
 * Checks a whole spec, one that was put together here or came from a peer (already unpacked), and
 * sets what follows from its fields. SEGUE_EINVAL names the field, its value and what is allowed:
 * what the setters of segue.h refuse, what must be there and is not, what does not go together.
 */
int segue_spec_check(struct segue_spec *spec);

/* Of an initial value of `size` bytes; NULL: zeros. */
void segue_init_hash(const void *init, uint64_t size, uint64_t hash[2]);

/* Whether a state has an initial value that is not zeros, and of which there is the hash alone. */
bool segue_spec_wants_init(const struct segue_spec *spec, size_t state);

/* The list that a field belongs to, as errors call it. */
enum segue_field_list { SEGUE_FIELD_SEQUENCE, SEGUE_FIELD_CONTEXT, SEGUE_FIELD_STATE };

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
