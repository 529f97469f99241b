/* A sweep divided among processes: shards.h has the contract. */
#include "shards.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session.h"

void crash_shards_read(
	struct crash_shards *shards, int argc, char **argv, const char *program, const char *unit)
{
	uint64_t seed = crash_seed();

	shards->unit = unit;
	shards->every = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
	shards->count = argc > 4 ? strtoull(argv[4], NULL, 10) : 2;
	if (shards->every == 0 || shards->count == 0)
		crash_die("EVERY and SHARDS are at least 1");
	shards->first = 1 + crash_mix(seed) % shards->every;
	printf("%s: %s, %s, every %llu. %s from %llu on, %llu shards, seed %llu\n", program,
		argv[1], argv[2], (unsigned long long)shards->every, unit,
		(unsigned long long)shards->first, (unsigned long long)shards->count,
		(unsigned long long)seed);
	fflush(stdout);
}

static void add(struct crash_outcome *all, const struct crash_outcome *one)
{
	all->faults += one->faults;
	all->last = one->last > all->last ? one->last : all->last;
	all->errors += one->errors;
	all->refusals += one->refusals;
	all->ns = one->ns > all->ns ? one->ns : all->ns;
}

struct crash_outcome crash_shards_run(const struct crash_shards *shards,
	void (*sweep)(uint64_t first, uint64_t step, struct crash_outcome *outcome))
{
	struct crash_outcome all = {0}, one = {0};
	int ends[2], status;

	if (pipe2(ends, O_CLOEXEC) < 0)
		crash_die("pipe: %s", strerror(errno));
	for (uint64_t shard = 0; shard < shards->count; shard++) {
		int64_t start = crash_now();
		pid_t pid = fork();
		if (pid < 0)
			crash_die("fork: %s", strerror(errno));
		if (pid > 0)
			continue;
		sweep(shards->first + shard * shards->every, shards->count * shards->every, &one);
		one.ns = crash_now() - start;
		_exit(write(ends[1], &one, sizeof(one)) != (ssize_t)sizeof(one));
	}
	for (uint64_t shard = 0; shard < shards->count; shard++) {
		if (wait(&status) < 0 || status != 0)
			exit(1);
		if (read(ends[0], &one, sizeof(one)) != (ssize_t)sizeof(one))
			crash_die("a shard said nothing");
		add(&all, &one);
	}
	if (all.faults == 0)
		crash_die("no %s was reached: nothing was tested", shards->unit);
	close(ends[0]);
	close(ends[1]);
	return all;
}
