/*
 * Streams by their names: what one is that is open, or that the store has; so that who opens it
 * need not know where its data lie. On the loop's thread.
 */
#ifndef SEGUE_STREAM_FIND_H
#define SEGUE_STREAM_FIND_H

#include "stream/opening.h"

/*
 * Answers with the stream's spec: of one that is open, else the store's, else of one in the making.
 */
void segue_find_request(struct segue_session *session, const struct segue_message *message);
/*
 * Opens the stream with the source that it has, as segue_stream_open_request() does with one that
 * is given: order->spec, which was checked, is without (`stored`), and is taken over.
 */
void segue_find_and_open(const struct segue_opening_order *order);

#endif
