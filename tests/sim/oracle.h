/*
 * The oracle: knows from the outside what may be delivered, stored and lost, and fails the run when
 * something else happens.
 *
 * It keeps, for each grant, the line of history that the grant continues: for each step the states
 * that its worker handed over with that commit. States carry a salt of the attempt, so that the
 * states of a batch that was not committed are never equal to those of its second delivery.
 */
#ifndef SEGUE_SIM_ORACLE_H
#define SEGUE_SIM_ORACLE_H

#include "lane/image.h"
#include "world.h"

void sim_oracle_begin(void);
/* A holder was told that its lane has another batch size from `step` on. */
void sim_oracle_sized(uint32_t pair, uint64_t generation, uint64_t step);

/* Whom a grant is for: a handle, and its process. */
struct sim_owner {
	uint64_t handle;
	int64_t process;
};

/* A line of history: of the pair, from that grant on. */
struct sim_line {
	uint32_t pair;
	uint64_t generation; /* 0: none */
};

/* A grant was decided on; it continues the line of `parent` at `step`. */
void sim_oracle_granted(uint32_t pair, uint64_t generation, struct sim_line parent, uint64_t step,
	bool rollback, struct sim_owner owner);
/* Whether no other handle, and no restore, got the lane from grant `from` to grant `to`. */
bool sim_oracle_all_of(uint32_t pair, uint64_t from, uint64_t to, uint64_t handle);
/* The process that the lane was granted to next after `generation`; 0: none. */
int64_t sim_oracle_process_after(uint32_t pair, uint64_t generation);
/* The same of the last grant, as far as the disk knows. */
int64_t sim_oracle_process(uint32_t pair);
/*
 * A newer handle took the lane of an older one, which had committed the batches below `step` under
 * the lease `from`: they count, but for those from when the lane had been granted anew already.
 * `unknown`: unless another process came between.
 */
void sim_oracle_continues(
	uint32_t pair, uint64_t generation, uint64_t from, uint64_t step, bool unknown);
/* It is sent to a worker: it must be on disk, and new. */
void sim_oracle_sent(uint32_t pair, uint64_t generation, uint64_t step);
/* A batch with these states in was handed out. */
void sim_oracle_delivered(
	uint32_t pair, uint64_t generation, uint64_t step, const struct sim_states *in);
/* The worker is about to commit; and has learned that it could not. */
void sim_oracle_commits(
	uint32_t pair, uint64_t generation, uint64_t step, const struct sim_states *out);
void sim_oracle_withdrawn(uint32_t pair, uint64_t generation, uint64_t step);
/* The worker was told that batches below `step` are on disk. */
void sim_oracle_acknowledged(uint32_t pair, uint64_t generation, uint64_t step);
/* An image that was taken of the lease: its states belong to its position. */
void sim_oracle_image(uint32_t pair, uint64_t generation, const struct segue_image *image);
/* The lane goes back to that step of the lease's: the disk gets what had been kept then. */
void sim_oracle_rewinds(uint32_t pair, uint64_t generation, uint64_t step);
/* A transaction that wrote this lane is on disk. */
void sim_oracle_stored(uint32_t pair);
/* All lanes have ended and are on disk. */
void sim_oracle_end(void);

#endif
