package startlimit

const sysPrlimit = 302
