/*
 * The store of a run: survives every crash of the server; a transaction takes time and is all or
 * nothing.
 */
#ifndef SEGUE_SIM_DISK_H
#define SEGUE_SIM_DISK_H

#include "lane/carry.h"
#include "lane/image.h"
#include "lane/lease.h"
#include "world.h"

struct sim_disk_row {
	uint64_t number;
	uint32_t key_size;
	char key[SIM_KEY_MAX];
	struct sim_states states;
};

struct sim_disk_lane {
	bool exists;
	struct segue_lane_record record; /* its position is owned */
	struct sim_disk_row row[2 * SIM_ROWS];
	uint32_t rows;
};

#define SIM_NUMBERS (SIM_RECORDS * 4)

struct sim_disk {
	struct sim_disk_lane lane[SIM_PAIRS];
	uint32_t ends; /* of the world's, that the stream's record has */
	struct sim_disk_row final[SIM_GROUPS][SIM_NUMBERS]; /* key_size 0: none */
	int64_t lag;                                        /* of a transaction: steps, at most */
	int fail_next;      /* SEGUE_ENOSPACE or SEGUE_ESTORE: the next transaction ends so */
	int64_t full_until; /* no room for any transaction before */
};
extern struct sim_disk sim_disk;

/* A transaction: a list of operations. */
struct sim_ops {
	struct sim_op *op;
	size_t count, capacity;
};
/* The lane's record with `position` (copied). */
void sim_ops_lane(struct sim_ops *ops, uint32_t pair, const struct segue_lane_record *record,
	const struct segue_position *position);
/* What brings the live rows on disk from `account` to `image`. */
void sim_ops_rows(struct sim_ops *ops, uint32_t pair, const struct segue_image *image,
	struct segue_account *account);
void sim_ops_final(struct sim_ops *ops, uint32_t pair, uint64_t number, const char *key,
	uint32_t key_size, const uint8_t *states);
/* Final states go back to what they were at that step of the lease's. */
void sim_ops_rewind(struct sim_ops *ops, uint32_t pair, uint64_t generation, uint64_t step);
/* The stream's record, with the world's first `ends`. */
void sim_ops_grow(struct sim_ops *ops, uint32_t ends);
void sim_ops_finish(struct sim_ops *ops);

void sim_disk_begin(void);
/* Takes time. 0, SEGUE_ENOSPACE (nothing happened), SEGUE_ESTORE (all or nothing happened). */
int sim_disk_apply(const struct sim_ops *ops);
/* The server died: a transaction under way has happened or has not. */
void sim_disk_crash(void);
/* The lane as it is stored; an empty image if it is not. */
struct segue_image *sim_disk_image(uint32_t pair);

#endif
