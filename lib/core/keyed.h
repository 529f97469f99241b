/*
 * States by record key as the server's answers carry them: a head, and entries one after the other.
 *
 *	head: u64 count, u64 high, u64 low, u32 lane, u32 done
 *	entry: u64 step, u64 number, u64 states_size, u32 kind, u32 lane, u32 key_size, u32 0,
 *	       key, states, each filled up with zeros to 8 bytes
 *
 * high, low and lane: where the next page begins, unless there is none (done). The server writes
 * them, and the library reads them. Pure.
 */
#ifndef SEGUE_CORE_KEYED_H
#define SEGUE_CORE_KEYED_H

#include "segue/segue.h"

struct segue_keyed_head {
	uint64_t count;
	uint64_t at[2];
	uint32_t lane, done;
};

enum { SEGUE_KEYED_HEAD = 32, SEGUE_KEYED_ENTRY = 40 };

/* Bytes that an entry takes. */
uint64_t segue_keyed_size(const struct segue_states *states);
/* Writes one to `to`, which has that many bytes. */
void segue_keyed_pack(const struct segue_states *states, uint8_t *to);
/*
 * Reads the first of `bytes`, of which there are `left`; *states points into them. Returns how many
 * it takes, or 0 if it is cut short.
 */
uint64_t segue_keyed_unpack(const uint8_t *bytes, size_t left, struct segue_states *states);

#endif
