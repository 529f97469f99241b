/*
 * Part 2: the CRC32C of the server beside that of ISA-L (crc32_iscsi), by turns, over bytes that
 * the caches hold: a run of bytes, a TFRecord, whose length of 8 bytes has a CRC of its own, and
 * runs of lengths that vary from half to one and a half, so that few branches on them are foreseen.
 * Ours stays for as long as it is the faster one. Built where ISA-L is installed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l/crc.h>

#include "bench.h"
#include "core/crc32c.h"

typedef uint32_t crc_fn(const uint8_t *bytes, size_t size);

static uint32_t ours(const uint8_t *bytes, size_t size)
{
	return segue_crc32c(0, bytes, size);
}

static uint32_t isal(const uint8_t *bytes, size_t size)
{
	return ~crc32_iscsi((unsigned char *)(uintptr_t)bytes, (int)size, 0xffffffffu);
}

enum { LENGTHS = 4096 };

/* GB/s of one way over runs of these lengths, at places of a buffer that are not aligned. */
static double measure(
	crc_fn *crc, bool record, const uint8_t *bytes, const uint32_t *lengths, int64_t ns)
{
	static unsigned next;
	uint64_t sum = 0, done = 0;
	int64_t began = bench_now(), now;

	do {
		for (int i = 0; i < 16; i++, next++) {
			const uint8_t *at = bytes + (i & 7);
			size_t size = lengths[next % LENGTHS];

			if (record)
				sum += crc(bytes, 8);
			sum += crc(at, size);
			done += size;
		}
		now = bench_now();
	} while (now - began < ns);
	bench_use(sum);
	return (double)done / (double)(now - began);
}

static void compare(const char *what, const uint8_t *bytes, size_t size, bool quick)
{
	static uint32_t lengths[LENGTHS];
	struct bench_samples mine = {0}, theirs = {0};
	bool record = strcmp(what, "a record of ") == 0, varied = strcmp(what, "around ") == 0;
	uint64_t seed = 2;
	char name[64];

	if (ours(bytes, size) != isal(bytes, size))
		bench_die("the two disagree");
	for (int round = 0; round < (quick ? 31 : 301); round++) {
		for (size_t i = 0; i < LENGTHS; i++)
			lengths[i] =
				(uint32_t)(varied ? size / 2 + bench_random(&seed) % size : size);
		bench_samples_add(&mine, measure(ours, record, bytes, lengths, 300000));
		bench_samples_add(&theirs, measure(isal, record, bytes, lengths, 300000));
	}
	snprintf(name, sizeof(name), "CRC32C (%s) of %s%zu bytes", segue_crc32c_name(), what, size);
	bench_print(&(struct bench_figure){.part = 2,
			    .name = name,
			    .shape = "",
			    .value = bench_samples_at(&mine, 0.5),
			    .unit = "GB/s",
			    .beside = "ISA-L",
			    .beside_value = bench_samples_at(&theirs, 0.5)},
		"of %zu turns", mine.count);
	bench_samples_finish(&mine);
	bench_samples_finish(&theirs);
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = {8, 12, 64, 100, 128, 256, 300, 500, 512, 777, 1024, 1500,
		2048, 3000, 4096, 10000, 65536, 1 << 20};
	static const size_t records[] = {64, 256, 1000, 1024, 4096, 16384, 65536, 1 << 20};
	static const size_t varied[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384};
	bool quick = bench_options(argc, argv);
	uint8_t *bytes = bench_alloc((1 << 20) + 8);
	uint64_t seed = 1;

	for (size_t i = 0; i < (1 << 20) + 8; i++)
		bytes[i] = (uint8_t)bench_random(&seed);
	for (size_t i = 0; i < BENCH_COUNT(sizes); i++)
		compare("", bytes, sizes[i], quick);
	for (size_t i = 0; i < BENCH_COUNT(records); i++)
		compare("a record of ", bytes, records[i], quick);
	for (size_t i = 0; i < BENCH_COUNT(varied); i++)
		compare("around ", bytes, varied[i], quick);
	free(bytes);
	return 0;
}
