/*
 * Attacks on a server, one file each, and the canary that must not notice them.
 *
 *	hostile NAME DIR DATA SCRATCH SECONDS SEED [thorough] [crowded]   an attack; `list` names them
 *	hostile NAME+b ...                                        the same by a worker of another group
 *	hostile canary DIR DATA OUT PACE_US STEPS                 STEPS 0: until SIGTERM
 *	hostile data PATH                                         writes the data set
 */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "core/wait.h"

static const struct {
	const char *name, *row;
	void (*run)(struct hostile *hostile);
} attacks[] = {
#define HOSTILE_ENTRY(name, row) {#name, row, attack_##name},
	HOSTILE_ATTACKS(HOSTILE_ENTRY)
#undef HOSTILE_ENTRY
};

static const struct {
	const char *name;
	uint32_t lane;
	void (*run)(struct hostile *hostile);
} beside[] = {
#define HOSTILE_ENTRY(name, lane) {#name "+b", lane, attack_##name},
	HOSTILE_BESIDE(HOSTILE_ENTRY)
#undef HOSTILE_ENTRY
};

static volatile sig_atomic_t stop;

static void on_term(int signal)
{
	(void)signal;
	stop = 1;
}

/* A line a batch: when, step, hash of all that it brought, nanoseconds of next; "ask" lines: answers
 * to a question. */
static void canary(char **arguments)
{
	const struct hostile hostile = {.dir = arguments[0], .data = arguments[1]};
	FILE *out = fopen(arguments[2], "w");
	useconds_t pace = (useconds_t)atoi(arguments[3]);
	long steps = atol(arguments[4]);
	struct segue_client *client;
	struct segue_stream *stream;

	EXPECT(out, "cannot write %s", arguments[2]);
	setvbuf(out, NULL, _IOLBF, 0);
	signal(SIGTERM, on_term);
	hostile_open(&hostile, hostile.dir, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, 0, SEGUE_START_FRESH);
	for (long done = 0; !stop && (steps == 0 || done < steps); done++) {
		int64_t before = segue_now_ns();
		struct segue_batch *batch = hostile_next(lane);
		int64_t after = segue_now_ns();
		fprintf(out, "%lld %llu %016llx %lld\n", (long long)after,
			(unsigned long long)segue_batch_step(batch),
			(unsigned long long)hostile_check(batch), (long long)(after - before));
		hostile_commit(batch);
		if (pace && done % 32 == 0) {
			char *json;
			before = segue_now_ns();
			int rc =
				segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json);
			if (rc == 0)
				segue_free(json);
			after = segue_now_ns();
			fprintf(out, "%lld ask %s %lld\n", (long long)after,
				rc ? segue_error_name(rc) : "ok", (long long)(after - before));
		}
		if (pace)
			usleep(pace);
	}
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	fclose(out);
}

/* 2: there is none of that name. */
static int attack(int argc, char **argv)
{
	struct hostile hostile = {
		.dir = argv[2],
		.data = argv[3],
		.scratch = argv[4],
		.random = strtoull(argv[6], NULL, 10),
		.until = segue_now_ns() + (int64_t)(atof(argv[5]) * 1e9),
	};

	for (int j = 7; j < argc; j++) {
		hostile.thorough |= strcmp(argv[j], "thorough") == 0;
		hostile.crowded |= strcmp(argv[j], "crowded") == 0;
	}
	for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		if (strcmp(argv[1], attacks[i].name) != 0)
			continue;
		attacks[i].run(&hostile);
		return 0;
	}
	for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
		if (strcmp(argv[1], beside[i].name) != 0)
			continue;
		hostile_beside(&hostile, beside[i].lane, beside[i].run);
		return 0;
	}
	return 2;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "data") == 0) {
		hostile_write_data(argv[2]);
		return 0;
	}
	if (argc == 7 && strcmp(argv[1], "canary") == 0) {
		canary(argv + 2);
		return 0;
	}
	for (size_t i = 0; argc == 2 && i < sizeof(attacks) / sizeof(attacks[0]); i++)
		printf("%s %s\n", attacks[i].name, attacks[i].row);
	for (size_t i = 0; argc == 2 && i < sizeof(beside) / sizeof(beside[0]); i++)
		printf("%s\n", beside[i].name);
	return argc < 7 ? argc != 2 : attack(argc, argv);
}
