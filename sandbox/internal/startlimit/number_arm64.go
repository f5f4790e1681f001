package startlimit

const sysPrlimit = 261
