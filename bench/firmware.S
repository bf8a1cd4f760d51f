/* Firmware for a QEMU that starts a payload without a BIOS: reset vector, flat 32-bit mode, jump. */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The payload, its start info (ABOUT) and its entry point (ENTRY) are already in the RAM file: see
 * guest.py.  64 KiB, mapped so that it ends at 4 GiB; offsets here are those from 0xffff0000.
 */
	.set	BASE, 0xffff0000
	.set	ABOUT, 0x7000
	.set	ENTRY, 0x7ff8

	.text
	.code16
	.org	0xff00
start16:
	cli
	cld
	lgdtl	%cs:gdt_pointer
	movl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$0x08, $(BASE + start32)

	.code32
start32:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$ABOUT, %ebx
	jmp	*ENTRY

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	BASE + gdt

	.code16
	.org	0xfff0
	jmp	start16
	.org	0x10000
