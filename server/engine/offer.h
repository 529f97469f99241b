/*
 * Commits that a worker offers, since the server that had its lane is gone: the plan is run from
 * what is stored to the step that it names.
 */
#ifndef SEGUE_ENGINE_OFFER_H
#define SEGUE_ENGINE_OFFER_H

#include "engine/order.h"

/*
 * The lane as it is offered: *out, the caller's also on an error, or NULL where nothing is newer
 * than `stored`; ended rows, oldest first, go to the end of the list *kept. SEGUE_EFENCED (it has
 * gone further), SEGUE_ECHANGED (behind sequences that the log has no more), SEGUE_EPROTOCOL (it
 * cannot be), SEGUE_ELIMIT (too far), SEGUE_EGONE, SEGUE_ENOMEM.
 */
int segue_offer_follow(const struct segue_grant_order *order, const struct segue_image *stored,
	struct segue_image **out, struct segue_kept **kept);

#endif
