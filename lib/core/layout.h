/*
 * The segments that server and worker share: batch ring, carry, lease page. lib/LAYOUT.md draws
 * them.
 *
 * Every segment begins with a struct segue_segment. All offsets follow from the spec, so both sides
 * compute the same struct segue_geometry and compare its hash. Pure.
 */
#ifndef SEGUE_CORE_LAYOUT_H
#define SEGUE_CORE_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>

#include "core/sequence_log.h"
#include "core/spec.h"

#define SEGUE_LAYOUT_VERSION 7
/* Two cache lines: adjacent-line prefetch makes neighbours of pairs. */
#define SEGUE_LINE 128
/* Alignment of every tensor. */
#define SEGUE_ALIGN 64
/* A step that never comes: "unknown", "never". */
#define SEGUE_NEVER      UINT64_MAX
#define SEGUE_ERROR_TEXT 1024
#define SEGUE_GONE_TEXT  256

enum segue_segment_kind {
	SEGUE_SEGMENT_RING = 0x52474553,     /* "SEGR" */
	SEGUE_SEGMENT_CARRY = 0x43474553,    /* "SEGC" */
	SEGUE_SEGMENT_LEASE = 0x4c474553,    /* "SEGL" */
	SEGUE_SEGMENT_FOLLOWER = 0x46474553, /* "SEGF" */
};

/* First bytes of each segment; written before the fd is sent. */
struct segue_segment {
	uint32_t magic; /* enum segue_segment_kind */
	uint32_t version;
	uint64_t size; /* of the whole segment */
	uint64_t hash; /* of every offset: struct segue_geometry.hash */
	uint64_t reserved;
};

/*
 * Batch ring: server writes, worker reads only. `published` counts batches: those below it are
 * readable, batch t in slot t % depth.
 */
struct segue_ring_header {
	struct segue_segment segment;
	/* Writer: server. */
	_Alignas(SEGUE_LINE) _Atomic uint64_t published;
	/* Step at which the lane ended, or SEGUE_NEVER. Written before the bell rings. */
	_Atomic uint64_t end;
	uint64_t undelivered; /* valid once `end` is set */
	/* A code of segue_error at which batch `error_step` could not be made; 0: none. */
	_Atomic uint32_t error;
	uint64_t error_step;
	char error_text[SEGUE_ERROR_TEXT];
	_Atomic uint64_t skipped; /* records passed over so far, each time that they were met */
	/* Counts events; workers sleep on it (futex, shared). */
	_Alignas(SEGUE_LINE) _Atomic uint32_t bell;
	_Alignas(SEGUE_LINE) char end_of_header[];
};

/* Beside enum segue_span_flags: a sequence that waits, behind the rows of the batch. */
#define SEGUE_SPAN_PARKED (UINT32_C(1) << 31)

/*
 * First bytes of each slot. At the geometry's offsets follow: the rows' previous rows (one u32
 * each, SEGUE_NO_ROW where the initial value comes in; what a worker must read of every batch,
 * hence apart from the spans), spans, tensors, initial values of the states that have them from the
 * data, or of all where rows begin with what was kept (as tensors of context; of account where a
 * sequence begins), heap.
 */
struct segue_slot {
	uint64_t step;
	uint32_t rows;
	/*
	 * Spans, and previous rows: those of the rows, then those of the parked sequences, which
	 * have flags, row, previous row and key, and no length. When the batch is committed, the
	 * states of each of these are copied from its previous row of buffer t - 1 to its row of t.
	 */
	uint32_t spans;
	/*
	 * Of a log: what whoever is behind this batch has seen of it. An offer says so, and a
	 * server whose log went on otherwise refuses it. Of other sources: zeros.
	 */
	struct segue_log_place seen;
	/*
	 * Of a row: the T of the tensors [rows, T, dims...], which lie densely; and how many of all
	 * rows * T count.
	 */
	uint32_t steps;
	uint32_t reserved;
	uint64_t valid;
	uint64_t reserved_too;
};

/*
 * Carry: one a lease, the worker writes, the server reads (words by atomic loads, states by pread).
 * Then depth + 1 buffers: buffer t % (depth + 1) holds the states after batch t.
 */
struct segue_carry_header {
	struct segue_segment segment;
	_Alignas(SEGUE_LINE) _Atomic uint64_t committed; /* batches below it are committed */
	/*
	 * Of a lane with replicas: batches below it have been taken. Followers sleep on its lower
	 * half (futex, shared).
	 */
	_Atomic uint64_t taken;
	/* ns that the holder has waited for batches of this lease. */
	_Atomic uint64_t waited;
	_Alignas(SEGUE_LINE) _Atomic uint64_t released; /* no view by a batch below it is alive */
	_Alignas(SEGUE_LINE) _Atomic uint32_t
		sleeping; /* 1: asleep on the ring's bell or the page's */
	/* Of a lane with replicas: how often batch t was put back and taken again, at t % 64. */
	_Alignas(SEGUE_LINE) _Atomic uint32_t again[SEGUE_DEPTH_MAX];
	_Alignas(SEGUE_LINE) char end_of_header[];
};

/*
 * Follower page: one a replica that follows, which writes it as a holder writes its carry; it is
 * like the head of one. `committed`: batches below it are done with. `taken` is not used. What
 * follows of a batch is its holder's carry, read only.
 */
#define SEGUE_FOLLOWER_SIZE sizeof(struct segue_carry_header)

/* What the server asks of a holder, which does it between two batches, or does not: bits. */
enum segue_lease_asks {
	SEGUE_ASKS_RENEW = 1, /* ask for the lane again: there is another feed for it */
	SEGUE_ASKS_BACK = 2,  /* give the lane back: another worker has fewer */
	SEGUE_ASKS_MORE = 4,  /* a lane is free for this worker: ask for one */
};

/* Lease page: one a lease, server writes, the holder reads only. */
struct segue_lease_page {
	struct segue_segment segment;
	_Alignas(SEGUE_LINE) _Atomic uint64_t generation; /* differs from the holder's: fenced */
	_Alignas(
		SEGUE_LINE) _Atomic uint64_t wake_at; /* wake the server when released reaches it */
	_Alignas(SEGUE_LINE) _Atomic uint64_t durable; /* batches below it are on disk */
	_Atomic uint32_t error; /* storage failed: no further batch; a code of segue_error */
	char error_text[SEGUE_ERROR_TEXT];
	_Alignas(SEGUE_LINE) _Atomic uint32_t
		bell;          /* counts changes of durable, error, generation, asks */
	_Atomic uint32_t asks; /* enum segue_lease_asks: what the holder is to do between batches */
	_Atomic uint32_t followers; /* replicas that follow the holder now (futex, shared) */
	_Atomic uint32_t gone;      /* counts those that went; gone_text: the last */
	char gone_text[SEGUE_GONE_TEXT], missing_text[SEGUE_GONE_TEXT]; /* who is not there */
	_Alignas(SEGUE_LINE) char end_of_page[];
};

/*
 * What lies in a row of a batch, in the span table of its slot: 88 bytes, one a row, in row order
 * (lib/LAYOUT.md). Programs get a copy: struct segue_span.
 */
struct segue_slot_span {
	uint64_t number;        /* of the sequence in the stream, from 0: rank in which it enters */
	uint64_t epoch;         /* from 0; of an empty row: the epoch that it pads */
	uint64_t first_step;    /* segment * num_unroll */
	uint64_t array_steps;   /* steps of the whole sequence's arrays */
	uint64_t total_length;  /* steps of the whole sequence that count */
	uint32_t row;           /* in this batch */
	uint32_t offset;        /* first step's place in the row */
	uint32_t length;        /* valid steps here */
	uint32_t segment;       /* k, from 0 ("sequence" in batches of the original) */
	uint32_t segment_count; /* of the whole sequence ("sequence_count") */
	uint32_t previous_row;  /* its row in the batch before, or SEGUE_NO_ROW */
	uint32_t flags;         /* enum segue_span_flags */
	uint32_t key_size;      /* bytes of the record's key */
	uint32_t key_offset;    /* its place in the heap of the slot */
	uint32_t part; /* of a mix: which of its parts the sequence is of, from 0; else 0 */
	uint32_t reserved[2];
};

/* Where everything lies. Offsets of tensors are within a slot, those of states within a buffer. */
struct segue_geometry {
	uint32_t depth;
	uint32_t places;     /* of rows, parked ones included */
	uint32_t num_unroll; /* of whole sequences: what they may have at most */
	size_t sequence_count, context_count, state_count;
	/* Of context behind those of sequences: one array. */
	uint64_t *sequence_offset, *context_offset, *state_offset;
	/* Per state: of the rows' initial values; 0: none there (segue_spec_brings_initial). */
	uint64_t *initial_offset;
	/*
	 * Features that are not dense, sequences first; of their table in a slot: the number of its
	 * side segment (0: it needs none), then where in that the values of each begin. 0: none.
	 */
	uint32_t variable;
	uint64_t side_offset;
	uint64_t previous_offset, span_offset, heap_offset, heap_size;
	uint64_t slot_size, slots_offset, ring_size;
	uint64_t buffer_size, buffers_offset, carry_size;
	uint64_t lease_size;
	uint64_t hash;
};

/*
 * The spec's geometry with `places` rows (the spec's batch_size, unless the lane was given another:
 * segue_plan_places) and `key_max` bytes of heap a row. SEGUE_ELIMIT if a size overflows 2^40.
 */
int segue_geometry_init(const struct segue_spec *spec, uint32_t places, uint32_t key_max,
	struct segue_geometry *geometry);
/* Frees the arrays; a zeroed struct is fine. */
void segue_geometry_finish(struct segue_geometry *geometry);

/*
 * Checks the first bytes of a mapped segment: kind, version, size, hash. SEGUE_EVERSION or
 * SEGUE_EPROTOCOL, and the detail says which and both values.
 */
int segue_segment_check(const struct segue_segment *segment, enum segue_segment_kind kind,
	uint64_t size, const struct segue_geometry *geometry);
/* Writes the first bytes of a new segment. */
void segue_segment_init(struct segue_segment *segment, enum segue_segment_kind kind, uint64_t size,
	const struct segue_geometry *geometry);

static inline struct segue_slot *segue_ring_slot(
	void *ring, const struct segue_geometry *geometry, uint64_t step)
{
	return (struct segue_slot *)((char *)ring + geometry->slots_offset +
				     (step % geometry->depth) * geometry->slot_size);
}

/* Offset in the carry of the buffer that holds the states after batch `step`. */
static inline uint64_t segue_carry_offset(const struct segue_geometry *geometry, uint64_t step)
{
	return geometry->buffers_offset + (step % (geometry->depth + 1u)) * geometry->buffer_size;
}

/* Bytes of all states of one row, side by side in the order of the spec, without padding. */
uint64_t segue_row_size(const struct segue_spec *spec);
/* Writes row-major `states` (rows * row_size) as a buffer ([places, dims...] a state). Both are
 * private. */
void segue_states_scatter(const struct segue_spec *spec, const struct segue_geometry *geometry,
	const uint8_t *states, uint32_t rows, uint8_t *buffer);
/* The reverse, for one row. */
void segue_states_gather(const struct segue_spec *spec, const struct segue_geometry *geometry,
	const uint8_t *buffer, uint32_t row, uint8_t *states);
/* Whether policy hands a row that goes on the initial value of its state (docs/policy.md). */
bool segue_state_zeroed(
	const struct segue_spec *spec, size_t state, const struct segue_slot_span *span);

#endif
