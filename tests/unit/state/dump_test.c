// Tests of the views for people: JSON dump and schema text.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <stdlib.h>
#include <string.h>

#include "sample.h"

static void test_json(void)
{
	static const char expected[] =
		"{\"ier\":90,\"irq\":true,\"divisor\":258,\"rx\":\"68656c6c6f\","
		"\"lines\":[false,true,false],\"regs\":[3735928559,0,7],"
		"\"queue\":[{\"ring_gpa\":\"0x100000\",\"size\":256,\"used_idx\":0,"
		"\"enabled\":false},{\"ring_gpa\":\"0xfffffffff000\",\"size\":64,"
		"\"used_idx\":65535,\"enabled\":true}],"
		"\"timer\":{\"deadline_ns\":\"0x8000000000000001\"},"
		"\"abi\":{\"abi\":\"sample_abi\","
		"\"hex\":\"33000580000000000000000000000000ffffffff00000000\"},"
		"\"features\":\"0x102030405060708\",\"scratch\":119,"
		"\"msrs\":[\"0xc0000080\",\"0x0\",\"0xffffffffffffffff\"]}";
	struct sample_v1 sample;
	json_t *json;
	char *text;

	sample_fill(&sample);
	json = state_dump_json(&sample_v1_desc, &sample);
	text = json_dumps(json, JSON_COMPACT);
	g_assert_cmpstr(text, ==, expected);
	free(text);
	json_decref(json);
}

static void test_json_never_reads_past_a_list(void)
{
	struct sample_v1 sample;
	json_t *json;

	sample_fill(&sample);
	sample.n_queues = UINT32_MAX;
	json = state_dump_json(&sample_v1_desc, &sample);
	g_assert_cmpuint(json_array_size(json_object_get(json, "queue")), ==, 4);
	json_decref(json);
}

static void test_schema(void)
{
	static const char expected[] =
		"sample version 2, readable from version 1 on\n"
		"    1  ier                      u8\n"
		"    2  irq                      bool\n"
		"    3  divisor                  u16\n"
		"    4  rx                       u8[0..13]\n"
		"    5  lines                    bool[3]\n"
		"    6  regs                     u32[3]\n"
		"    7  queue                    struct sample-queue[0..6]\n"
		"    8  timer                    struct sample-timer\n"
		"    9  abi                      blob sample_abi, 24 octets\n"
		"   10  features                 u64\n"
		"   11  gone\n"
		"   12  msrs                     u64[0..8]\n"
		"   13  fcr                      u32, since 2, optional\n"
		"\n"
		"sample-queue version 1, readable from version 1 on\n"
		"    1  ring_gpa                 u64\n"
		"    2  size                     u16\n"
		"    3  used_idx                 u16\n"
		"    4  enabled                  bool\n"
		"\n"
		"sample-timer version 1, readable from version 1 on\n"
		"    1  deadline_ns              u64\n";
	g_autoptr(GString) out = g_string_new(NULL);

	state_schema_write(&sample_v2_desc, out);
	g_assert_cmpstr(out->str, ==, expected);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/dump/json", test_json);
	g_test_add_func("/state/dump/json-bounded", test_json_never_reads_past_a_list);
	g_test_add_func("/state/schema/text", test_schema);
	return g_test_run();
}
