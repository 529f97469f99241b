/*
 * What a stream's batches look like: the spec, where everything lies, initial states. Shared by the
 * stream and the mappings of its lanes; the last of them frees it.
 */
#ifndef SEGUE_CLIENT_SHAPE_H
#define SEGUE_CLIENT_SHAPE_H

#include "core/layout.h"

struct segue_shape {
	unsigned users;
	struct segue_spec *spec;
	bool settled;                   /* by the server's answer: what follows is valid */
	struct segue_geometry geometry; /* with the spec's batch_size; zeros before */
	uint32_t key_max;
	uint64_t row_size; /* bytes of all states of one row; from the beginning */
};

/* Checks and copies what is asked for. The caller is the first user. SEGUE_EINVAL, SEGUE_ENOMEM. */
int segue_shape_create(const struct segue_spec *asked, struct segue_shape **out);
/* One user less; NULL is fine. */
void segue_shape_drop(struct segue_shape *shape);

/*
 * The server's answer: the first one settles the geometry, later ones must be the same.
 * SEGUE_ECHANGED: the data set's longest key is another one; SEGUE_EVERSION: the server lays its
 * memory out in another way.
 */
int segue_shape_settle(struct segue_shape *shape, uint32_t key_max, uint64_t hash);

#endif
