// The id of a QMP request, kept as the text that it is.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>

/**
 * request_id_take() - Take the value of the member "id" out of a request
 * @text:	A whole JSON value whose brackets and strings are balanced, hostile otherwise.  Where it
 *		is an object with an id, null takes the id's place
 *
 * An id is any JSON value, and comes back in the reply as it was sent: a number of any size and
 * with all its digits, a string with \u0000, members in their order.  No parser that turns it into
 * values of C keeps all that, so it stays text, checked, in ASCII and without white space.
 *
 * Return: the id, the caller's; NULL if there is none, or if it is no JSON.
 */
char *request_id_take(GString *text);
