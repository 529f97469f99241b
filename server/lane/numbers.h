/*
 * The numbers of sequences: which record each is, in which epoch.
 *
 * Number g belongs to lane g mod lanes. With lanes_by = record the records of a lane are those with
 * record mod lanes = lane, in ceil(records / lanes) places an epoch, the same for all lanes; what
 * is not there in the last of them has a number, and is no record. docs/shuffle.md defines both.
 * Pure.
 */
#ifndef SEGUE_LANE_NUMBERS_H
#define SEGUE_LANE_NUMBERS_H

#include "segue/segue.h"

/* Not one of the data set: passed over. */
#define SEGUE_NO_RECORD UINT64_MAX

struct segue_numbers {
	uint64_t records, seed;
	uint32_t lanes;
	enum segue_lanes_by lanes_by;
	bool shuffle;
};

/* How many an epoch has: those of epoch e begin with e times as many. */
uint64_t segue_numbers_an_epoch(const struct segue_numbers *numbers);
/* How many of the first `epochs` epochs belong to `lane`; as many as there can be at most. */
uint64_t segue_numbers_of_lane(const struct segue_numbers *numbers, uint32_t lane, uint64_t epochs);
/* SEGUE_EINVAL: more lanes than records to split; too many before `first_epoch`. */
int segue_numbers_check(const struct segue_numbers *numbers, uint64_t first_epoch);
/* The record that sequence `number` is, or SEGUE_NO_RECORD. */
uint64_t segue_numbers_record(const struct segue_numbers *numbers, uint64_t number);

#endif
