/*
 * The files of a data set: found by their patterns, inflated if need be, read through a limited
 * number of open file descriptors.
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
#include "source/inflate.h"
#include "source/source.h"

#define SEGUE_FILES_TRAIL_MAX 8

struct segue_file {
	char *path;       /* absolute, as listed */
	const char *name; /* in keys and in the fingerprint: below the common directory */
	char *data_path;  /* what is read: `path` itself, or its inflated copy */
	uint64_t size;    /* of the data; of a compressed file known when it is inflated */
	int slot;         /* among the open ones, or -1 */
	const struct segue_packing *packed; /* how it is compressed; NULL: not */
	bool copied;                        /* its copy has been found, or made: */
	bool fresh;                         /* by this table */
	/* When the copy was last changed that was read, and is as it was made; ns, 0: none. */
	_Atomic int64_t proven;
	uint64_t packed_size;
	uint8_t packed_trail[SEGUE_FILES_TRAIL_MAX]; /* its last bytes, with a checksum */
	struct segue_copy copy;
	uint64_t sample[2]; /* by the format's `sample` */
	/* Of the file that had it: not looked at again as long as these are the same. */
	ino_t sampled_inode;
	int64_t sampled_ns; /* 0: it had been changed just before */
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
	const struct segue_file_format *format;
	enum segue_compression compression;
	struct segue_opener opener;
	/* Open files; under `mutex`. */
	pthread_mutex_t mutex;
	pthread_cond_t let_go;
	struct segue_open_file *open;
	size_t open_most; /* segue_files_open_most(), or as many as there are files */
	uint64_t reads;
};

/* How many a data set has open at once, by turns: 4 to 1024, by `ulimit -n`. */
size_t segue_files_open_most(void);
/* As many as a source of this spec may have open; of a pattern only the opening will tell. */
uint64_t segue_files_descriptors(const struct segue_spec *spec);

/*
 * Finds the files: expands patterns (pattern.h), looks at each. A compressed one gets the path of
 * its copy in the cache, but is not inflated yet. SEGUE_ESOURCE: nothing there, not a plain file,
 * no permission; SEGUE_EDATA: of another kind (foreign.h); compressed, or not, otherwise than the
 * spec says, or in a way that is not read; what segue_matches_add returns. All that is opened now
 * and later is opened through the opener of `means`, whose roots and reader must outlive the table;
 * NULL: with the server's own rights.
 */
int segue_files_open(const struct segue_spec *spec, const struct segue_file_format *format,
	enum segue_compression compression, const struct segue_source_means *means,
	struct segue_files **out);
/* Whether a reader may open all files of a spec, which is all that is looked at. SEGUE_ESOURCE,
 * SEGUE_ELIMIT. */
int segue_files_check(const struct segue_spec *spec, const struct segue_opener *opener);
/* NULL is fine. Nobody may be reading. */
void segue_files_close(struct segue_files *files);

/*
 * Inflates the compressed ones whose copy is not there, or is of other content (inflate.h), and
 * finds sizes. The cache is locked meanwhile.
 */
int segue_files_inflate(struct segue_files *files, const struct segue_source_means *means);
/* Reads all copies that were there before, and inflates anew what is not as it was made. */
int segue_files_check_copies(struct segue_files *files, const struct segue_source_means *means);
/*
 * Where data are damaged: 0 if they are so in the file itself. SEGUE_ESOURCE: the copy of it that
 * is open is damaged, and is removed.
 */
int segue_files_check_copy(struct segue_files *files, size_t file);
/* Removes the copy of a compressed file, which is of no use. */
void segue_files_discard(struct segue_files *files, size_t file);

/*
 * Reads exactly `size` bytes of a file's data. SEGUE_ESOURCE: they cannot be read; SEGUE_ECHANGED:
 * the file's size is no longer what it was. The detail names the file. Any thread.
 */
int segue_files_read(
	struct segue_files *files, size_t file, uint64_t position, void *bytes, size_t size);

/* Puts in front of an error's detail which file, and of a compressed one, which copy. */
int segue_file_fail_within(int rc, const struct segue_file *file);
/* Bytes of memory that the table takes. */
size_t segue_files_memory(const struct segue_files *files);

#endif
