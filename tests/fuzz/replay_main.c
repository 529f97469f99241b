/*
 * Runs a fuzz target without libFuzzer: over the files of a corpus, and over random changes to them.
 *
 *	replay_<target> [-n changes] [-s seed] DIR
 *
 * A directory without files is an error: nothing would be tested.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX (1 << 20)

/* A copy of exactly that size, so that ASan sees a byte too many. */
static void run(const uint8_t *bytes, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, bytes, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

/* Some bytes set, the end cut off, a piece doubled. */
static size_t change(uint8_t *bytes, size_t size)
{
	for (long n = random() % 4; size && n >= 0; n--)
		bytes[(size_t)random() % size] ^= (uint8_t)(1 << random() % 8);
	if (size && random() % 4 == 0)
		size = (size_t)random() % size;
	if (size && random() % 4 == 0) {
		size_t from = (size_t)random() % size, count = (size_t)random() % (size - from);

		memcpy(bytes + size, bytes + from, count);
		size += count;
	}
	return size;
}

static void run_file(const char *path, long changes)
{
	uint8_t *bytes = malloc(INPUT_MAX), *changed = malloc(2 * INPUT_MAX);
	FILE *file = fopen(path, "rbe");
	size_t size;

	if (!file || !bytes || !changed) {
		perror(path);
		exit(1);
	}
	size = fread(bytes, 1, INPUT_MAX, file);
	fclose(file);
	run(bytes, size);
	for (long i = 0; i < changes; i++) {
		memcpy(changed, bytes, size);
		run(changed, change(changed, size));
	}
	free(bytes);
	free(changed);
}

static int run_directory(const char *directory, long changes)
{
	DIR *list = opendir(directory);
	struct dirent *entry;
	int files = 0;

	if (!list) {
		perror(directory);
		exit(1);
	}
	while ((entry = readdir(list))) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		run_file(path, changes);
		files++;
	}
	closedir(list);
	return files;
}

int main(int argc, char **argv)
{
	long changes = 2000, seed = 1;
	int option, files;

	while ((option = getopt(argc, argv, "n:s:")) != -1) {
		if (option == 'n')
			changes = atol(optarg);
		else if (option == 's')
			seed = atol(optarg);
		else
			return 2;
	}
	if (optind + 1 != argc) {
		fprintf(stderr, "usage: %s [-n changes] [-s seed] DIR\n", argv[0]);
		return 2;
	}
	printf("seed %ld, %ld changes to each file of %s\n", seed, changes, argv[optind]);
	fflush(stdout);
	srandom((unsigned)seed);
	files = run_directory(argv[optind], changes);
	printf("%d files\n", files);
	return files ? 0 : 1;
}
