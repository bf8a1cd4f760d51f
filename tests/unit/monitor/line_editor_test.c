// The line editor: keys in, lines and a screen out.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/line_editor.h"

#include <string.h>

#define COLUMNS 200

/** struct screen - A terminal with one row: enough of one to see what a person would see */
struct screen {
	char row[COLUMNS + 1];
	size_t at;
	GString *lines; /* what the editor called finished, each ended by '|' */
};

static void screen_char(struct screen *s, char c)
{
	if (c == '\r') {
		s->at = 0;
	} else if (c == '\n') {
		memset(s->row, 0, sizeof(s->row));
	} else {
		g_assert_cmpuint(s->at, <, COLUMNS);
		s->row[s->at++] = c;
	}
}

/* "[12D" and "[K", what comes after ESC.  Return: its length. */
static size_t screen_escape(struct screen *s, const char *text)
{
	size_t n = strcspn(text, "DKJH");

	if (text[n] == 'D') {
		size_t by = g_ascii_strtoull(text + 1, NULL, 10);

		g_assert_cmpuint(by, <=, s->at);
		s->at -= by;
	} else if (text[n] == 'K') {
		memset(s->row + s->at, 0, sizeof(s->row) - s->at);
	} else if (text[n] == 'H') {
		s->at = 0;
		memset(s->row, 0, sizeof(s->row));
	}
	return n + 1;
}

static void screen_write(void *opaque, const char *text, size_t len)
{
	struct screen *s = opaque;
	g_autofree char *copy = g_strndup(text, len);

	for (const char *p = copy; *p;) {
		if (*p == 0x1b) {
			p++;
			p += screen_escape(s, p);
		} else {
			screen_char(s, *p++);
		}
	}
}

static void screen_line(void *opaque, const char *line)
{
	g_string_append_printf(((struct screen *)opaque)->lines, "%s|", line);
}

static void screen_complete(void *opaque, const char *prefix, GPtrArray *matches)
{
	static const char *const words[] = {"migrate", "migrate_cancel", "stop"};

	for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
		if (g_str_has_prefix(words[i], prefix))
			g_ptr_array_add(matches, g_strdup(words[i]));
}

static const struct line_editor_ops ops = {screen_write, screen_line, screen_complete};

#define LEFT  "\x1b[D"
#define RIGHT "\x1b[C"
#define UP    "\x1b[A"
#define DOWN  "\x1b[B"

static void type(struct line_editor *editor, const char *keys)
{
	for (; *keys; keys++)
		line_editor_feed(editor, *keys);
}

/* Type @keys into a new editor; what is seen then is @seen, what was finished @lines. */
static void expect(const char *keys, const char *seen, const char *lines)
{
	struct screen s = {.lines = g_string_new(NULL)};
	struct line_editor *editor = line_editor_new("> ", &ops, &s);

	line_editor_show(editor);
	type(editor, keys);
	g_assert_cmpstr(s.row + 2, ==, seen);
	g_assert_cmpstr(line_editor_text(editor), ==, seen);
	g_assert_cmpstr(s.lines->str, ==, lines);
	/* The cursor is where typing goes on. */
	line_editor_feed(editor, '^');
	g_assert_cmpstr(s.row + 2, ==, line_editor_text(editor));
	line_editor_free(editor);
	g_string_free(s.lines, TRUE);
}

static void test_editing(void)
{
	expect("hello", "hello", "");
	expect("helo" LEFT "l", "hello", "");
	expect("ello\001h", "hello", "");
	expect("ello\001h\005!", "hello!", "");
	expect("hexllo" LEFT LEFT LEFT "\x7f", "hello", "");
	expect("hexllo" LEFT LEFT LEFT LEFT "\004", "hello", "");
	expect("hexllo" LEFT LEFT LEFT LEFT "\x1b[3~", "hello", "");
	expect("hello there" LEFT LEFT LEFT LEFT LEFT LEFT "\013", "hello", "");
	expect("xx hello" LEFT LEFT LEFT LEFT LEFT "\025", "hello", "");
	expect("hello there \027\027h", "h", "");
	expect("\x1b[Ha\x1b[Fb\x1b[1~c\x1b[4~d", "cabd", "");
	expect("\x7f\x7f" LEFT RIGHT "\004\013\025\027", "", "");
	expect("ab\014c", "abc", "");
	expect("a\x1b[99;99Zb\x1bQc", "abc", "");
}

static void test_too_long(void)
{
	struct screen s = {.lines = g_string_new(NULL)};
	const struct line_editor_ops blind = {screen_write, screen_line, screen_complete};
	struct line_editor *editor = line_editor_new("", &blind, &s);

	for (int i = 0; i < 10000; i++) {
		s.at = 0;
		line_editor_feed(editor, 'x');
	}
	g_assert_cmpuint(strlen(line_editor_text(editor)), ==, LINE_EDITOR_MAX);
	line_editor_free(editor);
	g_string_free(s.lines, TRUE);
}

static void finished(const char *keys, const char *lines)
{
	struct screen s = {.lines = g_string_new(NULL)};
	struct line_editor *editor = line_editor_new("", &ops, &s);

	type(editor, keys);
	g_assert_cmpstr(s.lines->str, ==, lines);
	line_editor_free(editor);
	g_string_free(s.lines, TRUE);
}

static void test_lines(void)
{
	finished("one\rtwo\nthree\r\nfour\n", "one|two|three|four|");
	finished("\r\n\n", "||");
	finished("abc" LEFT LEFT "\r", "abc|");
}

static void test_history(void)
{
	finished("one\rtwo\r" UP "\r", "one|two|two|");
	finished("one\rtwo\r" UP UP "\r", "one|two|one|");
	finished("one\rtwo\r" UP UP UP UP DOWN "\r", "one|two|two|");
	finished("one\r" UP DOWN "x\r", "one|x|");
	finished("one\r\020!\r", "one|one!|");
	finished("a\ra\rb\r" UP UP UP "\r", "a|a|b|a|");
}

static void test_completion(void)
{
	finished("st\t\r", "stop |");
	finished("mi\t_c\t\r", "migrate_cancel |");
	finished("x\t\r", "x|");
	finished("mi\t\t\r", "migrate|");
}

static void test_random(void)
{
	static const char alphabet[] =
		"ab \x1b[ABCDHF~3\x7f\001\002\004\005\006\013\020\016\025\027";
	struct screen s = {.lines = g_string_new(NULL)};
	struct line_editor *editor = line_editor_new("> ", &ops, &s);
	GRand *rand = g_rand_new_with_seed(11);

	line_editor_show(editor);
	for (int i = 0; i < 100000; i++) {
		line_editor_feed(editor, alphabet[g_rand_int_range(rand, 0, sizeof(alphabet) - 1)]);
		g_assert_cmpstr(s.row + 2, ==, line_editor_text(editor));
		if (strlen(line_editor_text(editor)) > COLUMNS - 20)
			line_editor_feed(editor, '\r');
		if (s.row[0] == 0)
			line_editor_show(editor);
	}
	g_rand_free(rand);
	line_editor_free(editor);
	g_string_free(s.lines, TRUE);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/line-editor/editing", test_editing);
	g_test_add_func("/line-editor/too-long", test_too_long);
	g_test_add_func("/line-editor/lines", test_lines);
	g_test_add_func("/line-editor/history", test_history);
	g_test_add_func("/line-editor/completion", test_completion);
	g_test_add_func("/line-editor/random", test_random);
	return g_test_run();
}
