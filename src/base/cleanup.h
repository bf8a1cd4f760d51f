// Scope-bound freeing of our own structs, which have no typedefs for g_autoptr to paste.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>

/**
 * DEFINE_CLEANUP() - Let autoptr(@type) free a struct @type with @free_fn, which accepts NULL
 *
 * Beside the declaration of foo_free(): DEFINE_CLEANUP(foo, foo_free)
 * In a function:                        autoptr(foo) f = foo_new();
 */
#define DEFINE_CLEANUP(type, free_fn)                           \
	static inline void type##_cleanup(struct type **object) \
	{                                                       \
		free_fn(*object);                               \
	}

#define autoptr(type) __attribute__((cleanup(type##_cleanup))) struct type *
