from caffe_clr.cli import main

main()
