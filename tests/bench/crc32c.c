/*
 * Part 2: the CRC32C of the server beside that of ISA-L (crc32_iscsi), by turns, over bytes that
 * the caches hold. Ours stays for as long as it is the faster one. Built where ISA-L is installed.
 */
#include <stdio.h>
#include <stdlib.h>

#include <isa-l/crc.h>

#include "bench.h"
#include "source/tfrecord/crc32c.h"

static uint32_t isal(const uint8_t *bytes, size_t size)
{
	return ~crc32_iscsi((unsigned char *)(uintptr_t)bytes, (int)size, 0xffffffffu);
}

/* GB/s of one way over `size` bytes, at places of a buffer that are not aligned. */
static double measure(bool ours, const uint8_t *bytes, size_t size, int64_t ns)
{
	uint64_t sum = 0, calls = 0;
	int64_t began = bench_now(), now;

	do {
		for (int i = 0; i < 16; i++, calls++) {
			const uint8_t *at = bytes + (i & 7);
			sum += ours ? segue_crc32c(0, at, size) : isal(at, size);
		}
		now = bench_now();
	} while (now - began < ns);
	bench_use(sum);
	return (double)(calls * size) / (double)(now - began);
}

static void compare(const uint8_t *bytes, size_t size, bool quick)
{
	struct bench_samples ours = {0}, theirs = {0};
	char name[64];

	for (int round = 0; round < (quick ? 31 : 301); round++) {
		bench_samples_add(&ours, measure(true, bytes, size, 300000));
		bench_samples_add(&theirs, measure(false, bytes, size, 300000));
	}
	snprintf(name, sizeof(name), "CRC32C (%s) of %zu bytes", segue_crc32c_name(), size);
	bench_print(&(struct bench_figure){.part = 2,
			    .name = name,
			    .shape = "",
			    .value = bench_samples_at(&ours, 0.5),
			    .unit = "GB/s",
			    .beside = "ISA-L",
			    .beside_value = bench_samples_at(&theirs, 0.5)},
		"of %zu turns", ours.count);
	bench_samples_finish(&ours);
	bench_samples_finish(&theirs);
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = {12, 64, 512, 4096, 65536, 1 << 20};
	bool quick = bench_options(argc, argv);
	uint8_t *bytes = bench_alloc((1 << 20) + 8);
	uint64_t seed = 1;

	for (size_t i = 0; i < (1 << 20) + 8; i++)
		bytes[i] = (uint8_t)bench_random(&seed);
	for (size_t i = 0; i < BENCH_COUNT(sizes); i++) {
		if (segue_crc32c(0, bytes, sizes[i]) != isal(bytes, sizes[i]))
			bench_die("the two disagree");
		compare(bytes, sizes[i], quick);
	}
	free(bytes);
	return 0;
}
