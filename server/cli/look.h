/*
 * A look at a server: the figures that 'segue top' and OpenMetrics show, read from its reports; and
 * what follows from two looks, one after the other. Pure: no clock, and nothing is asked here.
 *
 * Texts are printable (segue_cli_printable). A figure that is not known is negative, or NULL.
 */
#ifndef SEGUE_CLI_LOOK_H
#define SEGUE_CLI_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One (lane, group) of a stream. */
struct segue_look_lane {
	char *stream, *group; /* group: "" has no name; of persist = false the number it has */
	uint64_t lane, generation;
	char *state;    /* of its lease: "held", "free", ...; "closed": its stream is not open */
	bool persist;   /* it is stored */
	int64_t holder; /* process; 0: nobody has it */
	char *program, *script; /* the holder's; script: what an interpreter runs, else program */
	bool ring;              /* somebody has it, and the next four and the sums are known */
	uint64_t published, depth, ring_bytes;
	bool ended;
	uint64_t committed, durable; /* steps */
	uint64_t steps, steps_valid; /* sums: of batches filled */
	double worker_waits_s, server_waits_s, behind;
	double epoch, epochs, sequences, sequences_done;
	double committed_at, checkpoint_at; /* Unix time, s */
	char *waits_for_group;
	double waits_s;
	/* From the look before. */
	double batches_per_s;
	double worker_waits, server_waits; /* shares of the time, 0 to 1 */
	double eta_s;
	double pace, paced_s; /* sequences a second, and over how long that is */
	double still_s;       /* it has had a full ring, and committed nothing */
	int64_t left;         /* process that had it last, and has it no more; 0: not known */
	char *left_script;
};

struct segue_look_stream {
	char *name;
	char *state;                      /* "open", "opening", "dropped" */
	double skipped, accepted, synced; /* accepted, synced: of a log */
	/* From the look before: the worker that waited most of the time for data. */
	int64_t worst;         /* process; 0: not known */
	double exposed_wait;   /* share of its time, 0 to 1, */
	double exposed_wait_s; /* and seconds a batch; negative: it took none */
	double padding;        /* share, of all that its lanes have filled */
};

struct segue_look {
	int64_t at_ns, at_ms; /* when: monotonic, and Unix time */
	bool served;          /* a server has answered; else only the lanes' steps are known */
	char *dir;
	char *trouble; /* why no server answers, or what of its storage fails; NULL: nothing */
	int64_t pid;
	char *version;
	bool embedded, stopping;
	double uptime_s, cpu_s, resident_bytes, sessions;
	double file_bytes, used_bytes, transactions, bytes_put;
	struct segue_look_stream *stream;
	size_t stream_count;
	struct segue_look_lane *lane; /* by stream, group, lane */
	size_t lane_count;
	char **note; /* who waits for whom, and what else there is to know */
	size_t note_count;
};

/*
 * Reads the report STATUS of a server, got at that time. SEGUE_EPROTOCOL: it is none. Finish it in
 * any case.
 */
int segue_look_read(const char *status, int64_t now_ns, int64_t now_ms, struct segue_look *out);
/*
 * The same of the report INSPECT of a store that nobody serves, which may be NULL: not known.
 * `trouble`: why there is no server.
 */
int segue_look_read_store(const char *inspect, const char *dir, const char *trouble, int64_t now_ns,
	int64_t now_ms, struct segue_look *out);
/* `before` may be NULL: then no rates are known. Writes the notes. Once for each look. */
void segue_look_compare(struct segue_look *look, const struct segue_look *before);
/* A zeroed one is fine. */
void segue_look_finish(struct segue_look *look);

/* Adds a lane of the look before, of a stream that is not open any more. */
void segue_look_keep(struct segue_look *look, const struct segue_look_lane *lane);
/* Adds a note. */
void segue_look_note(struct segue_look *look, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* What of the rows' steps is padding, 0 to 1; negative: there are none. */
double segue_look_padding(const struct segue_look_lane *lane);
/* Seconds since that time; negative if it is not known. */
double segue_look_age(const struct segue_look *look, double at);
/* The same as one line of JSON, malloc'd. SEGUE_ENOMEM. */
int segue_look_json(const struct segue_look *look, char **out);

#endif
