/*
 * The files of a data set: found by their patterns, inflated if need be, read through at most 64
 * open file descriptors.
 *
 * A file that is listed several times is one file here. Data are read by pread, never mapped: a
 * file that is cut off under the server is an error, not a signal.
 */
#ifndef SEGUE_SOURCE_FILES_H
#define SEGUE_SOURCE_FILES_H

#include <pthread.h>

#include "core/progress.h"
#include "core/spec.h"
#include "guard/roots.h"

#define SEGUE_FILES_MAX       (1 << 20) /* listed, what patterns match included */
#define SEGUE_FILES_OPEN_MAX  64
#define SEGUE_FILES_TRAIL_MAX 8
#define SEGUE_FILES_DEEP_MAX  64 /* components of a pattern, from the first wildcard on */

struct segue_file {
	char *path;       /* absolute, as listed */
	const char *name; /* in keys and in the fingerprint: below the common directory */
	char *data_path;  /* what is read: `path` itself, or its inflated copy */
	uint64_t size;    /* of the data */
	bool packed;      /* compressed: */
	uint64_t packed_size;
	uint8_t packed_trail[SEGUE_FILES_TRAIL_MAX]; /* its last bytes: CRC and length of gzip */
	int slot;                                    /* among the open ones, or -1 */
};

struct segue_open_file {
	int fd; /* -1: free */
	size_t file;
	uint32_t users;
	uint64_t used; /* when, counted in reads */
};

struct segue_files {
	struct segue_file *file; /* sorted by path, each once */
	size_t count;
	uint32_t *listing; /* in the order of the spec: indices into `file` */
	size_t listing_count;
	struct segue_opener opener;
	/* Open files; under `mutex`. */
	pthread_mutex_t mutex;
	pthread_cond_t let_go;
	struct segue_open_file open[SEGUE_FILES_OPEN_MAX];
	uint64_t reads;
};

/*
 * Finds the files: expands patterns (a path that is there stands for itself; what a pattern matches
 * is sorted by name), looks at each. A compressed one gets the path of its copy in `cache_dir`, but
 * is not inflated yet. SEGUE_ESOURCE: nothing there, not a plain file, no permission; SEGUE_EDATA:
 * not compressed although the spec says so; SEGUE_ELIMIT: more than SEGUE_FILES_MAX files, or a
 * pattern that is too deep. All that is opened now and later is opened through
 * `opener`, whose roots and reader must outlive the table; NULL: with the server's own rights.
 */
int segue_files_open(const struct segue_spec *spec, const char *cache_dir,
	const struct segue_opener *opener, struct segue_files **out);
/* Whether a reader may open all files of a spec, which is all that is looked at. SEGUE_ESOURCE,
 * SEGUE_ELIMIT. */
int segue_files_check(const struct segue_spec *spec, const struct segue_opener *opener);
/* NULL is fine. Nobody may be reading. */
void segue_files_close(struct segue_files *files);

/*
 * Inflates the compressed ones whose copy is not there yet, and finds sizes. Makes `cache_dir` and
 * locks it meanwhile: of several streams one inflates, the others wait and find its work.
 */
int segue_files_inflate(
	struct segue_files *files, const char *cache_dir, segue_progress_fn *progress, void *arg);

/*
 * Reads exactly `size` bytes of a file's data. SEGUE_ESOURCE: they cannot be read; SEGUE_ECHANGED:
 * the file's size is no longer what it was. The detail names the file. Any thread.
 */
int segue_files_read(
	struct segue_files *files, size_t file, uint64_t position, void *bytes, size_t size);

/* Bytes of memory that the table takes. */
size_t segue_files_memory(const struct segue_files *files);

#endif
