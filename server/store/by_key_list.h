/* What the store has under all record keys of a stream, page by page, as answers carry it. */
#ifndef SEGUE_STORE_BY_KEY_LIST_H
#define SEGUE_STORE_BY_KEY_LIST_H

#include "core/keyed.h"
#include "store/by_key.h"

/* Entries one after the other (core/keyed.h), with the head before them. */
struct segue_keyed_page {
	struct segue_keyed_head head;
	uint8_t *bytes; /* owned; room for the head, then the entries */
	size_t size, capacity;
};

/* Adds one. SEGUE_ENOMEM. */
int segue_keyed_page_add(struct segue_keyed_page *page, const struct segue_states *states);
/* Writes the head before the entries: page->bytes may be sent, SEGUE_KEYED_HEAD bytes or more. */
int segue_keyed_page_finish(struct segue_keyed_page *page);

/* The states under one key: kept, or of the newest sequence that goes on. SEGUE_ENOTFOUND. */
int segue_by_key_get(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, const char *key, bool live, struct segue_keyed_page *page);
/*
 * A page from page->head.lane and .at on, zeros at first, which say then where the next begins; or
 * that there is none (done).
 */
int segue_by_key_list(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, bool live, struct segue_keyed_page *page);

#endif
