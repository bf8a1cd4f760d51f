/* A guest that stays in 32-bit protected mode, its code segment with bit L, which is reserved there. */
/* SPDX-License-Identifier: Apache-2.0 */

	.section .note.pvh, "a", @note
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	start32

	.text
	.code32
	.globl	start32
start32:
	lgdt	gdt_pointer
	ljmp	$0x08, $1f
1:	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$0x6d6f6c74, 0x100004	/* SHARED_MAGIC in payload.h */
	movl	$0x2d6f6b21, 0x100000
2:	incl	0x100008		/* SHARED->counter */
	ljmp	$0x08, $2b		/* loads the segment anew */

	.data
	.balign	8
gdt:
	.quad	0
	.quad	0x00ef9b000000ffff	/* 0x08: 32-bit code, and L */
	.quad	0x00cf93000000ffff	/* 0x10: data */
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	gdt
	.section .note.GNU-stack, "", @progbits
