/* Entry of every payload: PVH (32-bit, no paging) to 64-bit C, with an identity map of 16 GiB. */
/* SPDX-License-Identifier: Apache-2.0 */

	.section .note.pvh, "a", @note
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	start32

	.text
	.code32
	.globl	start32
start32:
	movl	$1, 0x101000		/* first instruction: SHARED_FIRST in payload.h */
	cli
	cld
	movl	$stack_top, %esp
	movl	%ebx, start_info	/* struct hvm_start_info */
	call	make_page_tables
	lgdt	gdt_pointer
	call	enter_long_mode
	ljmp	$0x08, $start64

	.globl	enter_long_mode
enter_long_mode:
	movl	%cr4, %eax
	orl	$0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000001, %eax	/* PG, PE */
	movl	%eax, %cr0
	ret

make_page_tables:
	movl	$pdpt + 3, pml4
	movl	$pd + 3, %eax
	movl	$pdpt, %edi
	movl	$16, %ecx
1:	movl	%eax, (%edi)
	addl	$0x1000, %eax
	addl	$8, %edi
	loop	1b
	movl	$pd, %edi
	xorl	%edx, %edx		/* bits 32 and up of the address */
	movl	$0x83, %eax		/* present, writable, 2 MiB */
	movl	$(16 * 512), %ecx
2:	movl	%eax, (%edi)
	movl	%edx, 4(%edi)
	addl	$0x200000, %eax
	adcl	$0, %edx
	addl	$8, %edi
	loop	2b
	ret

	.code64
start64:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	start_info(%rip), %edi
	call	payload_main
3:	cli
	hlt
	jmp	3b

	/* Application processors start here in real mode, copied to TRAMPOLINE by smp.c. */
	.globl	trampoline_start, trampoline_end
	.code16
trampoline_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	(0x8000 + trampoline_gdt_pointer - trampoline_start)
	movl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$0x18, $ap_start32
	.balign	8
trampoline_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
trampoline_end:

	.code32
ap_start32:
	movl	$0x20, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	ap_stack, %esp
	call	enter_long_mode
	ljmp	$0x08, $ap_start64
	.code64
ap_start64:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	call	ap_main
4:	cli
	hlt
	jmp	4b

	.weak	ap_main
	.data
	.balign	16
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* 0x08: 64-bit code */
	.quad	0x00cf93000000ffff	/* 0x10: data */
	.quad	0x00cf9b000000ffff	/* 0x18: 32-bit code */
	.quad	0x00cf93000000ffff	/* 0x20: 32-bit data */
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
	.globl	start_info, ap_stack
start_info:
	.long	0
ap_stack:
	.long	0

	.bss
	.balign	4096
pml4:	.skip	4096
pdpt:	.skip	4096
pd:	.skip	16 * 4096
	.skip	16384
stack_top:
	.section .note.GNU-stack, "", @progbits
