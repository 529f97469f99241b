/* Where a log stands, and what is in it: for any thread. */
#include <inttypes.h>
#include <string.h>

#include "core/error.h"
#include "source/log/inside.h"

const struct segue_seqlog *segue_log_producers(const struct segue_log *log)
{
	return &log->producers;
}

const char *segue_log_path(const struct segue_log *log)
{
	return segue_log_dir_path(log->dir);
}

void segue_log_look(struct segue_log *log, struct segue_log_stand *out)
{
	pthread_mutex_lock(&log->mutex);
	*out = (struct segue_log_stand){.first = log->part[0].first,
		.written = log->written,
		.synced = log->synced,
		.files = log->parts,
		.failed = log->failed};
	for (size_t i = 0; i < log->parts; i++)
		out->bytes += log->part[i].end;
	pthread_mutex_unlock(&log->mutex);
}

/* The part that has the number, or would; under the mutex. */
static const struct segue_log_part *find(const struct segue_log *log, uint64_t number)
{
	size_t low = 0, high = log->parts;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (log->part[middle].first <= number)
			low = middle;
		else
			high = middle;
	}
	return &log->part[low];
}

uint64_t segue_log_floor(struct segue_log *log, uint64_t number)
{
	pthread_mutex_lock(&log->mutex);
	uint64_t first = find(log, number)->first;
	pthread_mutex_unlock(&log->mutex);
	return first;
}

uint64_t segue_log_retained(struct segue_log *log, const struct segue_log_retain *retain)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&log->mutex);
	size_t i = log->parts - 1;
	for (; i > 0; i--) {
		const struct segue_log_part *part = &log->part[i];

		bytes += part->end - part->head;
		if (log->synced.number >= part->first &&
			log->synced.number - part->first >= retain->sequences &&
			bytes >= retain->bytes)
			break;
	}
	uint64_t first = log->part[i].first;
	pthread_mutex_unlock(&log->mutex);
	return first;
}

uint64_t segue_log_bytes_from(struct segue_log *log, uint64_t number)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&log->mutex);
	const struct segue_log_part *part = find(log, number);
	if (number > part->first) {
		uint64_t place = number - part->first;

		bytes = part->end;
		if (place < part->count)
			bytes = part->index[place].offset;
		bytes = part->end - bytes;
		part++;
	}
	for (; part < log->part + log->parts; part++)
		bytes += part->end - part->head;
	pthread_mutex_unlock(&log->mutex);
	return bytes;
}

uint64_t segue_log_longer(struct segue_log *log, uint64_t first, uint64_t stride, uint64_t until,
	uint64_t most, uint64_t *within)
{
	uint64_t longer = 0, number = first;
	bool found = false;

	pthread_mutex_lock(&log->mutex);
	for (const struct segue_log_part *part = find(log, number); number < until;
		number += stride) {
		while (number - part->first >= part->count && part + 1 < log->part + log->parts)
			part++;
		if (number - part->first >= part->count)
			break;
		bool is_longer = part->index[number - part->first].steps > most;
		longer += is_longer;
		if (!is_longer && !found)
			*within = number;
		found = found || !is_longer;
	}
	pthread_mutex_unlock(&log->mutex);
	if (!found)
		*within = number;
	return longer;
}

void segue_log_find(struct segue_log *log, uint64_t number, struct segue_log_found *found)
{
	*found = (struct segue_log_found){.there = false};
	pthread_mutex_lock(&log->mutex);
	const struct segue_log_part *part = find(log, number);
	found->there = number >= part->first && number < log->written.number;
	if (found->there) {
		uint64_t place = number - part->first;
		const struct segue_seqfile_indexed *indexed = &part->index[place];

		found->at = indexed->offset;
		found->end = place + 1 < part->count ? indexed[1].offset : part->end;
		found->steps = indexed->steps;
		found->crc = indexed->crc;
		segue_log_name(part->first, found->name);
	}
	pthread_mutex_unlock(&log->mutex);
}

static int find_sequence(struct segue_log *log, uint64_t number, struct segue_log_found *found,
	struct segue_log_file **file)
{
	segue_log_find(log, number, found);
	if (!found->there)
		return segue_fail(SEGUE_ENOTFOUND,
			"sequence %" PRIu64
			" is not in the log: it was given up, or is not there yet",
			number);
	return segue_log_file_open(log->dir, found->name, false, file);
}

int segue_log_hash(struct segue_log *log, uint64_t number, uint64_t hash[2])
{
	uint8_t header[SEGUE_SEQFILE_ENTRY_MAX];
	struct segue_seqfile_entry entry;
	struct segue_log_found found;
	struct segue_log_file *file;

	pthread_mutex_lock(&log->mutex);
	bool last = number == log->written.number;
	if (last)
		memcpy(hash, log->written.hash, sizeof(log->written.hash));
	pthread_mutex_unlock(&log->mutex);
	if (last)
		return 0;
	int rc = find_sequence(log, number, &found, &file);
	if (rc)
		return rc;
	rc = segue_log_read_header(&log->head, file, found.at, found.end, header, &entry);
	if (!rc)
		memcpy(hash, entry.stamp.before, sizeof(entry.stamp.before));
	segue_log_file_close(file);
	return rc;
}

int segue_log_read(struct segue_log *log, uint64_t number, struct segue_log_entry **out)
{
	struct segue_log_found found;
	struct segue_log_file *file;
	int rc = find_sequence(log, number, &found, &file);

	if (rc)
		return rc;
	rc = segue_log_read_entry(&log->head, file, found.at, found.end, out);
	if (!rc && (*out)->entry.stamp.number != number) {
		segue_log_entry_free(*out);
		rc = segue_fail(SEGUE_EDATA,
			"a sequence of the log is damaged: it is another than number %" PRIu64,
			number);
	}
	segue_log_file_close(file);
	return rc;
}
