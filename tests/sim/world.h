/*
 * What a run is about: its spec, its data, and the one true plan of each lane, all drawn from the
 * seed.
 */
#ifndef SEGUE_SIM_WORLD_H
#define SEGUE_SIM_WORLD_H

#include "lane/plan.h"
#include "core/layout.h"
#include "source/source.h"

#define SIM_LANES    2
#define SIM_GROUPS   3                        /* at most */
#define SIM_PAIRS    (SIM_LANES * SIM_GROUPS) /* a (lane, group); pair = group * lanes + lane */
#define SIM_ROWS     3 /* of a batch, at most, and all that are on their way */
#define SIM_WINDOW   5 /* of sequences that are looked at for a class, at most */
#define SIM_WORDS    4 /* of the states of a row */
#define SIM_RECORDS  10
#define SIM_STEPS    160 /* no lane is longer */
#define SIM_KEY_MAX  16
#define SIM_NO_SIZE  255
#define SIM_ENDS     3 /* of the input, at most: the stream grows as it goes */
#define SIM_WORKERS  4
#define SIM_THREADS  2 /* of a worker: at most */
#define SIM_REQUESTS (SIM_WORKERS * SIM_THREADS)

/* A row's states, side by side. */
struct sim_states {
	uint64_t word[SIM_WORDS];
};

struct sim_lane_truth {
	struct segue_plan_spec plan;
	uint64_t end; /* the step at which it ends */
	/* By so many ends of its input, less one: the step at which it ends, and what it leaves. */
	uint64_t end_by[SIM_ENDS], undelivered_by[SIM_ENDS];
	struct segue_position *position[SIM_STEPS + 1]; /* position(t) */
	/* Where the lane is to get another batch size, before batch t: that, and position(t) then. */
	struct segue_position *sized[SIM_STEPS + 1];
	uint8_t wanted[SIM_STEPS + 1]; /* what is drawn; SIM_NO_SIZE: as before */
	struct segue_slot_span span[SIM_STEPS][SIM_ROWS];
	uint32_t rows[SIM_STEPS], spans[SIM_STEPS];
	/*
	 * Where rows begin with what was kept: of each that begins, the batch and row in which the
	 * sequence ended whose states those are; SIM_STEPS: initial ones.
	 */
	struct sim_left {
		uint64_t step;
		uint32_t row;
	} left[SIM_STEPS][SIM_ROWS];
};

struct sim_world {
	struct segue_spec spec;
	struct segue_ends ends; /* all that there will be */
	struct segue_field sequence, context, state[2];
	struct segue_geometry geometry[SIM_ROWS + 1]; /* by the places of a lease */
	uint32_t words;                               /* of the states of a row */
	uint32_t length[SIM_RECORDS];                 /* steps; 0: damaged, passed over */
	struct sim_states initial;                    /* but of states that have it from the data */
	struct segue_source source;
	uint32_t groups, pairs;
	struct sim_lane_truth
		truth[SIM_PAIRS]; /* groups differ where one has batch sizes of its own */
};

extern struct sim_world sim_world;

static inline uint32_t sim_lane_of(uint32_t pair)
{
	return pair % SIM_LANES;
}

static inline uint32_t sim_group_of(uint32_t pair)
{
	return pair / SIM_LANES;
}

/* Draws a world. */
void sim_world_begin(void);
/* The source of a server that starts: one that was killed may have been at work in it. */
void sim_world_open_source(void);

/* True if the slot holds batch `step` of the pair, all of it. */
bool sim_world_slot_right(const struct segue_geometry *geometry, const struct segue_slot *slot,
	uint32_t pair, uint64_t step);
/* Whether the pair has another batch size from here on; then *size is that. */
bool sim_world_sizes(uint32_t pair, uint64_t step, uint32_t *size);
/* Whether two groups go through the lane with the same batches all the way. */
bool sim_world_alike(uint32_t pair, uint32_t other);
/* The initial states of a sequence of the record. */
struct sim_states sim_world_initial(uint64_t record);
/* Writes the record's key; returns its size. */
uint32_t sim_world_key(uint64_t record, char key[SIM_KEY_MAX]);
/* Copies with scheduling points in between; words are never torn. */
void sim_copy_slowly(void *to, const void *from, size_t size);

/* State i of a row's: the first of its words. */
uint64_t *sim_state_of(struct sim_states *states, size_t i);
/* States of row `row` of a buffer. */
void sim_buffer_get(const struct segue_geometry *geometry, const uint8_t *buffer, uint32_t row,
	struct sim_states *states);
/* Writes them, slowly. */
void sim_buffer_put(const struct segue_geometry *geometry, uint8_t *buffer, uint32_t row,
	const struct sim_states *states);
bool sim_states_equal(const struct sim_states *a, const struct sim_states *b);

#endif
