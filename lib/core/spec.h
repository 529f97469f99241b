/*
 * A stream's spec as library and server keep it: an owned, checked copy of struct
 * segue_stream_spec.
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

	SEGUE_OPTIONS(SEGUE_OPTION_FIELD)
};

/* Those of struct segue_spec. */
extern const struct segue_option segue_spec_options[];

/*
 * Checks `spec`, fills in its defaults and copies all of it; relative paths are made absolute
 * against the working directory. On success the caller owns *out (segue_spec_destroy). SEGUE_EINVAL
 * names the field, its value and what is allowed: empty or ':' names, names twice, rank, a size
 * that overflows, num_unroll / batch_size / lanes of 0, depth < 2, no sequence feature, no path,
 * ...
 */
int segue_spec_create(const struct segue_stream_spec *spec, struct segue_spec **out);

/* Checks a spec that came from a peer (already unpacked): same rules, same errors. */
int segue_spec_check(struct segue_spec *spec);

/* A deep copy; the caller owns it. SEGUE_ENOMEM. */
int segue_spec_copy(const struct segue_spec *spec, struct segue_spec **out);

/* Frees what it points to and the struct. NULL is fine. */
void segue_spec_destroy(struct segue_spec *spec);

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
